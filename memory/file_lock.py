"""A lock on a file: at most one process holds it, and the kernel drops it when that process dies."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_POLL_S = 0.2


class FileLock:
    """An flock on `path`, for the processes of one machine. Held until `release` or the process's end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_acquire(self) -> bool:
        """Return whether the lock is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self, *, on_wait: Callable[[], None]) -> None:
        """Wait until the lock is ours; `on_wait` is called at each look while another holds it."""
        while not self.try_acquire():
            on_wait()
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Give the lock back; it cannot be taken again through this object."""
        os.close(self._descriptor)
