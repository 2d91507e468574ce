"""A producer that goes on while faults happen, and remembers what was accepted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from memory.errors import Recoverable
from memory.models import Receipt
from tests.pipeline.stack import Stack

_PAUSE_S = 0.02
_AT_ONCE = 10


class Load(threading.Thread):
    """Hands over ten memories at a time, some hundred a second, until it is told to stop."""

    def __init__(self, stack: Stack, *, namespace: str) -> None:
        super().__init__(name="load", daemon=True)
        self.accepted: list[Receipt] = []
        self.n_unsure = 0
        """How many were handed over last, to servers that were gone before they said yes or no."""
        self._stack = stack
        self._namespace = namespace
        self._stopping = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._enqueue()
        except BaseException as error:  # noqa: BLE001 (raised again by `stop`)
            self._error = error

    def stop(self) -> None:
        """Hand over nothing more; raise what went wrong."""
        self._stopping.set()
        self.join(timeout=60)
        assert not self.is_alive()
        if self._error:
            raise self._error

    def _enqueue(self) -> None:
        n = 0
        with self._stack.client() as client:
            while not self._stopping.wait(_PAUSE_S):
                drafts = [
                    {"content": f"memory {n + i}", "uid": f"{n + i}", "namespace": self._namespace}
                    for i in range(_AT_ONCE)
                ]
                self.n_unsure = _AT_ONCE
                # Where Redis is away they may be there or not: then the same again.
                with contextlib.suppress(Recoverable):
                    self.accepted += client.enqueue_many(drafts)
                    n += _AT_ONCE
                    self.n_unsure = 0


@contextlib.contextmanager
def load(stack: Stack, *, namespace: str) -> Iterator[Load]:
    """Run a load for the block."""
    running = Load(stack, namespace=namespace)
    running.start()
    try:
        yield running
    finally:
        running.stop()
