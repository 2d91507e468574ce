"""The owner's lock: at most one process changes the files of an index directory."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_POLL_S = 0.2


class OwnerLock:
    """An flock on `owner.lock`: the kernel drops it when the process dies, however it dies."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(directory / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

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
