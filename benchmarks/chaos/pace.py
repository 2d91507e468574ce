"""Ties faults and workload together: what lasts as long as what, whatever the machine's speed."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class Aborted(Exception):
    """The run is over before its plan is."""


class Pace:
    """How far the faults of the main victims have come, 0..1: the one that is last. All others wait for that.

    So the last memory is enqueued about when the last fault is done, and each victim's faults are spread
    over the whole run, without a clock.

    Args:
        shares: how far each main victim is at the start.

    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = dict(shares)
        self._moved = threading.Condition()
        self._abandoned = threading.Event()

    def reach(self, victim: str, share: float) -> None:
        with self._moved:
            self._shares[victim] = share
            self._moved.notify_all()

    def wait_for(self, share: float) -> None:
        """Wait until so much is done. Raises Aborted when that will never be."""
        with self._moved:
            self._moved.wait_for(lambda: self._reached >= share or self._abandoned.is_set())
        self._check()

    def rest(self, seconds: float) -> None:
        """Let time pass. Raises Aborted when the run is over."""
        self._abandoned.wait(seconds)
        self._check()

    def abandon(self) -> None:
        """Let everybody who waits, or will, go home."""
        self._abandoned.set()
        with self._moved:
            self._moved.notify_all()

    @property
    def _reached(self) -> float:
        return min(self._shares.values(), default=1.0)

    def _check(self) -> None:
        if self._abandoned.is_set():
            raise Aborted
