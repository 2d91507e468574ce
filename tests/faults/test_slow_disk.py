"""F3: while its disk flushes slowly, Redis answers before it writes, and may be killed just then."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from api_stub.stack.children import ChildSpec, spawn
from api_stub.stack.servers import RedisServer
from memory.errors import Recoverable
from memory.stream import IngestStream
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_N_KILLS = 3
_FLUSHED_BYTES = 400_000_000
_WAIT_S = 20


class Pushing(threading.Thread):
    """Pushes ten entries at a time and counts those that were accepted, until Redis is found to be away."""

    def __init__(self, url: str) -> None:
        super().__init__(name="pushing", daemon=True)
        self.n_accepted = 0
        self._stream = IngestStream(url)
        self._stopping = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(Recoverable):
            while not self._stopping.is_set():
                self._stream.push([b"x" * 200] * 10, lane="fast")
                self.n_accepted += 10

    def stop(self) -> None:
        self._stopping.set()
        self.join(timeout=20)
        assert not self.is_alive()


def test_f03_redis_killed_while_it_puts_its_writes_off_loses_nothing_that_was_accepted(home: Path) -> None:
    server = RedisServer(home / "redis")
    server.prepare()
    spec = server.child(home / "redis.log")
    with _busy_disk(home / "busy"):
        for _ in range(_N_KILLS):
            with _killed_at_the_end(spec, server.url) as client:
                n_before = client.xlen("mem:in:fast")
                pushing = Pushing(server.url)
                pushing.start()
                _wait_for_the_worst_moment(client)
            # It is back at once, so the producer may not even notice that it was gone.
            with _killed_at_the_end(spec, server.url) as client:
                pushing.stop()
                n_there = client.xlen("mem:in:fast") - n_before
            assert pushing.n_accepted > 0
            # What was pushed in that moment may be there though nobody was told, or twice.
            assert pushing.n_accepted <= n_there <= pushing.n_accepted + 20


@contextlib.contextmanager
def _killed_at_the_end(spec: ChildSpec, url: str) -> Iterator[redis.Redis]:
    """Run Redis for the block, then kill it at once."""
    process = spawn(spec)
    try:
        assert spec.is_ready is not None
        wait_until(spec.is_ready, timeout_s=60, why="Redis answers")
        yield redis.Redis.from_url(url)
    finally:
        process.kill()
        process.wait(timeout=20)


def _wait_for_the_worst_moment(client: redis.Redis) -> None:
    """Wait until Redis holds back what it was given, or until the disk proves to be too fast for that."""

    def puts_off() -> bool:
        state = client.info("persistence")
        return bool(state["aof_pending_bio_fsync"] and state["aof_buffer_length"])

    with contextlib.suppress(AssertionError):
        wait_until(puts_off, timeout_s=_WAIT_S, why="a flush takes long")


@contextlib.contextmanager
def _busy_disk(path: Path) -> Iterator[None]:
    """Write and flush large files beside, so that every other flush takes long."""
    stopping = threading.Event()

    def keep_busy() -> None:
        block = b"\0" * 1_000_000
        while not stopping.is_set():
            with path.open("wb") as file:
                for _ in range(_FLUSHED_BYTES // len(block)):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())

    thread = threading.Thread(target=keep_busy, name="busy-disk")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        path.unlink(missing_ok=True)
