"""A lock that any number may share to read, and one may have alone to change."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class SharedLock:
    """Neither side starves: who waits to change goes before later readers, and after a change those who
    wait to read go before the next one. So a reader waits for the present readers and one change at most.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._n_reading = 0
        self._n_wait_to_read = 0
        self._n_admitted = 0  # of those, to be let in before the next change
        self._n_wait_to_change = 0
        self._is_changing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with other readers."""
        with self._condition:
            self._n_wait_to_read += 1
            try:
                self._condition.wait_for(self._may_read)
            finally:
                self._n_wait_to_read -= 1
            self._n_admitted = max(0, self._n_admitted - 1)
            self._n_reading += 1
            self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._n_reading -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it while nobody else does."""
        with self._condition:
            self._n_wait_to_change += 1
            try:
                self._condition.wait_for(self._may_change)
            finally:
                self._n_wait_to_change -= 1
            self._is_changing = True
        try:
            yield
        finally:
            with self._condition:
                self._is_changing = False
                self._n_admitted = self._n_wait_to_read
                self._condition.notify_all()

    def _may_read(self) -> bool:
        return not self._is_changing and (self._n_admitted > 0 or not self._n_wait_to_change)

    def _may_change(self) -> bool:
        return not (self._is_changing or self._n_reading or min(self._n_admitted, self._n_wait_to_read))
