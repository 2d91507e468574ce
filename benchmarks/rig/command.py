"""A benchmark as a command: its options, its output for people and for tools, its exit code.

0: measured, and the run was valid. 1: measured, but the run was not valid; says why. 2: a bad argument, or
something that it needs is not there. 3: it did not come to its end. 130, 143: stopped by a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from benchmarks.rig.machine import describe_machine, load
from benchmarks.rig.waiting import NotInTime, say
from benchmarks.running_stack import StackFailed
from memory.errors import MemorySystemError

NOT_VALID, NOT_POSSIBLE, NOT_FINISHED = 1, 2, 3
_CACHE = "EMBEDDING_CACHE"


class NotPossible(Exception):
    """The benchmark cannot run here, or not so; says what is missing."""


class Report:
    """What a run has found. Figures may be mappings of figures."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.problems: list[str] = []

    def require(self, holds: bool, otherwise: str) -> None:
        """Make the run not valid unless this holds."""
        if not holds:
            say(f"NOT VALID: {otherwise}")
            self.problems.append(otherwise)


def command(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5, help="medians are of so many (default 5)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    return parser


def positive(text: str) -> int:
    """Read a whole number from 1, with or without commas or underscores."""
    value = int(text.replace(",", "_"))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def sizes(text: str) -> list[int]:
    """Read numbers from 1 with commas between them, in ascending order."""
    return sorted({positive(part) for part in text.split(",")})


def execute(name: str, arguments: argparse.Namespace, measure: Callable[[Report], None]) -> NoReturn:
    """Measure, print, and exit with the code that says how it went."""
    for number in (signal.SIGINT, signal.SIGTERM):  # so that what runs is stopped, what was written removed
        signal.signal(number, _stop)
    report, machine = Report(), describe_machine()
    started_at, before = datetime.now(UTC), load()
    try:
        with _model_cache():
            measure(report)
    except NotPossible as error:
        _end(name, str(error), code=NOT_POSSIBLE)
    except (NotInTime, StackFailed, MemorySystemError) as error:
        _end(name, f"{type(error).__name__}: {error}", code=NOT_FINISHED)
    result = {
        "benchmark": name,
        "command": shlex.join(["./run", "python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "started_at": started_at.isoformat(timespec="seconds"),
        "took s": round((datetime.now(UTC) - started_at).total_seconds()),
        "machine": {**machine, "load before": before, "load after": load()},
        "rounds": arguments.rounds,
        "figures": report.figures,
        "valid": not report.problems,
        "problems": report.problems,
    }
    print(json.dumps(result, ensure_ascii=False) if arguments.json else _as_table(result))
    sys.exit(NOT_VALID if report.problems else 0)


@contextlib.contextmanager
def _model_cache() -> Iterator[None]:
    """Let all stacks of a run share what they prepare of the model, and leave none of it."""
    if os.environ.get(_CACHE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as name:
        os.environ[_CACHE] = name
        try:
            yield
        finally:
            del os.environ[_CACHE]


def _stop(number: int, _frame: object) -> NoReturn:
    for later in (signal.SIGINT, signal.SIGTERM):  # a second one must not break off the tidying up
        signal.signal(later, signal.SIG_IGN)
    sys.exit(128 + number)


def _end(name: str, reason: str, *, code: int) -> NoReturn:
    sys.stderr.write(f"benchmarks.{name}: {reason}\n")
    sys.exit(code)


def _as_table(result: Mapping[str, Any]) -> str:
    around = {name: value for name, value in result.items() if name not in {"figures", "valid", "problems"}}
    verdict = {"valid": result["valid"], "problems": result["problems"]}
    parts = [[*_flat(part)] for part in (around, result["figures"], verdict)]
    width = max(len(name) for rows in parts for name, _ in rows)
    return "\n\n".join("\n".join(f"{name:<{width}}  {value}" for name, value in rows) for rows in parts)


def _flat(figures: Mapping[str, Any], *above: str) -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, *above, str(name))
        else:
            yield " · ".join((*above, str(name))), _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(v) for v in value) or "none"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
