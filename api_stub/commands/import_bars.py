"""How far an import has come: a bar for each of the three states."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api_stub.commands.output import err

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.follow import Follower

LOOK_EVERY_S = 0.3


class ImportBars:
    """Three bars on standard error, none where that is no terminal.

    How many memories there will be is estimated by the share of the bytes that was read.
    """

    def __init__(self, follower: Follower, *, share: Callable[[], float], quiet: bool) -> None:
        self._follower = follower
        self._share = share
        self._share_at_first: float | None = None  # what comes before was settled in an earlier run
        self._started = time.monotonic()
        self._last_look = 0.0
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[rate]}"),
            console=err,
            disable=quiet or not err.is_terminal,
        )
        self._tasks = {
            name: self._progress.add_task(name, total=None, rate="", left="")
            for name in ("accepted", "stored", "searchable")
        }

    def __enter__(self) -> ImportBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> bool:
        """Ask how far the memories have come, not too often, and show it. Returns whether it was asked."""
        if time.monotonic() - self._last_look < LOOK_EVERY_S:
            return False
        self._follower.look()
        self._show()
        return True

    def finish(self, *, wait_s: float) -> None:
        """Follow until all are settled, or nothing has moved for `wait_s`."""
        moved_at, last = time.monotonic(), -1
        while True:
            self._follower.look()
            self._show()
            if self._follower.done or time.monotonic() - moved_at > wait_s:
                return
            if self._follower.n_moved != last:
                moved_at, last = time.monotonic(), self._follower.n_moved
            time.sleep(0.05)

    def _show(self) -> None:
        self._last_look = time.monotonic()
        follower = self._follower
        seconds = max(1e-9, self._last_look - self._started)
        numbers = {
            "accepted": follower.n_accepted,
            "stored": follower.n_stored,
            "searchable": follower.n_searchable,
        }
        total = self._n_expected()
        for name, n in numbers.items():
            left_s = (total - n) * seconds / n if n else 0.0
            left = f"{timedelta(seconds=round(left_s))} left" if n else ""
            rate = f"{n / seconds:,.0f}/s"
            self._progress.update(self._tasks[name], completed=n, total=total, rate=rate, left=left)

    def _n_expected(self) -> int:
        """Return how many memories this run will have accepted in the end, as far as that can be told."""
        n, share = self._follower.n_accepted, self._share()
        if not n:
            return 0
        if self._share_at_first is None:
            self._share_at_first = 0.0 if share >= 1 else share
        begun = share - self._share_at_first
        return n if share >= 1 or begun <= 0 else round(n * (1 - self._share_at_first) / begun)
