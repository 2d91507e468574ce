"""The processes of a running stack, by name: what they have used and what they hold."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

import psutil

from benchmarks.running_stack import Stack

_NAMES = (
    (re.compile(r"--name (embed-\d+)"), None),
    (re.compile(r"workers beat"), "beat"),
    (re.compile(r" indexer\b"), "indexer"),
    (re.compile(r"postgres -D"), "postgres"),
    (re.compile(r"127\.0\.0\.1:"), "redis"),
)


def processes(stack: Stack) -> dict[str, psutil.Process]:
    """Return the children of the supervisor, and itself as `supervisor`, by name."""
    supervisor = psutil.Process(stack.process.pid)
    found = {name: child for child in supervisor.children() if (name := _name(child))}
    return {"supervisor": supervisor, **dict(sorted(found.items()))}


def processor_s(stack: Stack) -> dict[str, float]:
    """Return the seconds of processor time that each has used so far, its children's with it."""
    return {name: _used_s(name, process) for name, process in processes(stack).items()}


def used_ms(before: Mapping[str, float], after: Mapping[str, float], *, n: int) -> dict[str, float]:
    """Return milliseconds of processor time by process between two looks, for each 1,000 of `n` memories."""
    return {name: round((used - before[name]) * 1e6 / n, 1) for name, used in after.items() if name in before}


def resident_mb(stack: Stack) -> dict[str, dict[str, int]]:
    """Return RSS and PSS in MiB, by process, its children's with it. PSS counts a shared page once in all."""
    return {name: _size(name, process) for name, process in processes(stack).items()}


def _family(name: str, process: psutil.Process) -> Iterator[psutil.Process]:
    yield process
    if name != "supervisor":  # its children are the others
        yield from process.children(recursive=True)


def _used_s(name: str, process: psutil.Process) -> float:
    own = process.cpu_times()
    gone_s: float = 0.0 if name == "supervisor" else own.children_user + own.children_system
    return gone_s + sum(_own_s(member) for member in _family(name, process))


def _own_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):  # Postgres ends a connection's process at any time
        used = process.cpu_times()
        return float(used.user + used.system)
    return 0.0


def _size(name: str, process: psutil.Process) -> dict[str, int]:
    rss = pss = 0
    for member in _family(name, process):
        with contextlib.suppress(psutil.NoSuchProcess):
            held = member.memory_full_info()
            rss, pss = rss + held.rss, pss + held.pss
    return {"RSS MB": round(rss / 2**20), "PSS MB": round(pss / 2**20)}


def _name(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        line = " ".join(process.cmdline())
        for pattern, name in _NAMES:
            if match := pattern.search(line):
                return name or match.group(1)
    return None
