"""Signs of progress: each process touches a file whenever its loop turns; health is that file's age."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STALE_AFTER_S = 60
"""Longer than any step between two touches; a loop that has not turned for so long is stuck."""


class Heartbeat:
    """The sign of one process, by name, in `home/heartbeats`."""

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / "heartbeats" / name

    def touch(self) -> None:
        """Say that the loop turned."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    def forget(self) -> None:
        """Take the sign away, so that only a new touch counts."""
        self._path.unlink(missing_ok=True)

    def age_s(self) -> float | None:
        """Return the seconds since the last touch, `None` if there never was one."""
        try:
            return max(0.0, time.time() - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def is_fresh(self) -> bool:
        """Return whether the loop turned within `STALE_AFTER_S`."""
        age_s = self.age_s()
        return age_s is not None and age_s < STALE_AFTER_S
