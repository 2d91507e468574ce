"""Fills a stack with the corpus, once: what is there already stays and counts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig.command import NotPossible
from benchmarks.rig.corpus import drafts
from benchmarks.rig.stacks import Measured
from benchmarks.rig.waiting import NotInTime, Progress, say, wait_for

_CHUNK = 5_000
_AHEAD = 20_000  # so many may wait: enough to keep all busy, little enough to see how each chunk gets on
_STALLED_AFTER_S = 300
_SAVED_WITHIN_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """One moment of a filling: how many memories were searchable, and when (seconds of a monotonic clock)."""

    n: int
    at_s: float


def n_held(measured: Measured) -> int:
    """Return how many memories of the corpus are there already."""
    return measured.client.status().stored


def fill(measured: Measured, n: int, *, start: int | None = None) -> list[Filled]:
    """Add to the corpus until it has `n` memories and all are searchable; return how it went.

    Args:
        measured: the stack.
        n: how many it shall have.
        start: how many it has, where that is known: counting many takes a while.

    Raises:
        NotInTime: nothing got on for minutes.

    """
    start = n_held(measured) if start is None else start
    progress = Progress("searchable", total=max(0, n - start))
    course = [Filled(n=start, at_s=time.perf_counter())]
    for place in range(start, n, _CHUNK):
        stop = min(n, place + _CHUNK)
        measured.client.enqueue_many(drafts(place, stop), patience_s=_STALLED_AFTER_S)
        _wait_below(measured, _AHEAD)
        course.append(Filled(n=stop - measured.n_unfinished(), at_s=time.perf_counter()))
        progress.at(course[-1].n - start)
    if n > start:
        measured.wait_until_searchable(n=n - start, timeout_s=_STALLED_AFTER_S)
        course.append(Filled(n=n, at_s=time.perf_counter()))
        say(f"{n:,} memories are searchable")
    return course


def check_not_fuller(measured: Measured, n: int) -> None:
    """Refuse a kept stack that holds clearly more than is asked for.

    Raises:
        NotPossible: it does; says how many it holds.

    """
    held = n_held(measured)
    if held > 1.1 * n:
        raise NotPossible(f"the kept stack holds {held:,} memories already: ask for that many, not {n:,}")


def wait_until_saved(measured: Measured) -> None:
    """Wait until a snapshot holds all there is.

    Raises:
        NotInTime: none was saved.

    """
    pointer = measured.stack.home / "index" / "CURRENT"
    wait_for(
        lambda: pointer.exists() and measured.vitals().unsaved_s is None,
        timeout_s=_SAVED_WITHIN_S,
        what="a snapshot that holds all memories",
        pause_s=0.5,
    )


def index_bytes(home: Path) -> int:
    """Return the size of the vectors' file in the newest snapshot."""
    return vectors_file(home).stat().st_size


def vectors_file(home: Path) -> Path:
    """Return the vectors' file of the newest snapshot."""
    name = (home / "index" / "CURRENT").read_text().strip()
    return next((home / "index" / "snapshots" / name).glob("vectors.*"))


def _wait_below(measured: Measured, most: int) -> None:
    last, seen_at = -1, time.monotonic()
    while (left := measured.n_unfinished()) > most:
        if left != last:
            last, seen_at = left, time.monotonic()
        if time.monotonic() - seen_at > _STALLED_AFTER_S:
            raise NotInTime(f"{left:,} memories wait, and none was stored or applied in {_STALLED_AFTER_S} s")
        time.sleep(0.05)
