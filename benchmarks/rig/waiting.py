"""Waits with an end: whoever waits too long is told for what."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


class NotInTime(Exception):
    """What a benchmark waited for did not come."""


def wait_for(condition: Callable[[], object], *, timeout_s: float, what: str, pause_s: float = 0.05) -> None:
    """Wait until the condition holds.

    Raises:
        NotInTime: it did not in `timeout_s`; says what was waited for.

    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"waited {timeout_s:g} s in vain for this: {what}")
        time.sleep(pause_s)


def say(line: str) -> None:
    """Tell people how far it is, on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stderr.flush()


class Progress:
    """Says now and then how far a long part is and how long the rest will take."""

    def __init__(self, what: str, *, total: int, every_s: float = 10) -> None:
        self._what = what
        self._total = total
        self._every_s = every_s
        self._started = self._said = time.monotonic()

    def at(self, n: int) -> None:
        """Note that `n` of the total are done."""
        now = time.monotonic()
        if now - self._said < self._every_s or not n:
            return
        self._said = now
        left_s = (now - self._started) / n * (self._total - n)
        say(f"{self._what}: {n:,} of {self._total:,}, about {left_s / 60:.1f} minutes to go")
