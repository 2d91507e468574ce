"""F4, F6: a full Redis refuses producers alone and is emptied; what a full disk does not take is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from memory import database as database_module
from memory.database import Database
from memory.errors import QueueFull
from memory.models import Receipt
from memory.store.dead_letters import DeadLetters
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from tests.contract.test_drain import Worker, push
from tests.faults.null_stack import assert_kept, wait_until_dead, wait_until_idle
from tests.faults.test_servers_away import frozen
from tests.faults.threads import together
from tests.invariants import assert_events_contiguous, assert_one_row_a_key
from tests.pipeline.stack import Stack

pytestmark = pytest.mark.faults

_MIB = 2**20
_PROCESSES = ("embed-1", "indexer", "beat")


def test_f04_a_flood_is_refused_with_a_time_to_come_again_and_all_that_was_accepted_is_stored(
    null_stack: Stack,
) -> None:
    accepted: list[Receipt] = []
    refused: list[float] = []
    pids = pids_of(null_stack)

    def flood(producer: int) -> None:
        with null_stack.client() as client:
            for n in range(10_000):
                uids = (f"{producer} {n} {i}" for i in range(50))
                drafts = [{"content": uid + "x" * 2000, "uid": uid, "namespace": "f04 flood"} for uid in uids]
                try:
                    accepted.extend(client.enqueue_many(drafts, patience_s=0))
                except QueueFull as full:
                    refused.append(full.retry_after_s)
                    return

    wait_until_idle(null_stack)
    with limited(null_stack, room=16 * _MIB):
        with frozen(null_stack.child("embed-1")):
            together(*(lambda n=n: flood(n) for n in range(3)))
        assert len(refused) == 3
        assert min(refused) > 0
        wait_until_idle(null_stack)
        assert pids_of(null_stack) == pids
    assert_kept(null_stack, accepted, namespace="f04 flood")


def test_f04_a_redis_full_to_the_brim_is_emptied_by_the_workers_with_nobody_there_to_nudge_them(
    null_stack: Stack,
) -> None:
    drafts = [{"content": f"memory {i} " + "x" * 2000, "namespace": "f04 brim"} for i in range(2000)]
    with null_stack.client() as client:
        wait_until_idle(null_stack)
        pids = pids_of(null_stack)
        with frozen(null_stack.child("beat")), contextlib.ExitStack() as until_drained:
            with frozen(null_stack.child("embed-1")):
                receipts = client.enqueue_many(drafts)
                with null_stack.redis("broker") as broker:
                    broker.delete("embed")  # the nudges that are on their way already
                until_drained.enter_context(limited(null_stack, room=-2 * _MIB))
                with pytest.raises(QueueFull):
                    client.enqueue("one more", namespace="f04 brim")
            wait_until_idle(null_stack)
        assert pids_of(null_stack) == pids
    assert_kept(null_stack, receipts, namespace="f04 brim")


def test_f04_a_redis_that_others_have_filled_lets_workers_start_and_all_goes_on_when_there_is_room(
    null_stack: Stack,
) -> None:
    with null_stack.client() as client:
        wait_until_idle(null_stack)
        dead = null_stack.child("embed-1")
        with frozen(dead), filled(null_stack):
            receipts = list(
                client.enqueue_many([{"content": f"{i}", "namespace": "f04"} for i in range(500)])
            )
            with limited(null_stack, most=_MIB):
                dead.kill()
                wait_until_dead(dead)
                pids = pids_of(null_stack)
                wait_until_idle(null_stack)
                with pytest.raises(QueueFull):
                    client.enqueue("refused", namespace="f04")
        receipts += client.enqueue_many([{"content": f"more {i}", "namespace": "f04"} for i in range(100)])
        assert_kept(null_stack, receipts, namespace="f04")
        assert pids_of(null_stack) == pids


def test_f06_what_a_full_disk_does_not_take_is_kept_and_stored_once_when_there_is_room(
    stream: IngestStream, redis_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{home / 'memories.db'}"
    roomy = Database(url)
    roomy.upgrade()
    with roomy.read() as connection:
        n_pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
    pragmas = (*database_module._SQLITE_PRAGMAS, f"max_page_count={n_pages + 10}")
    push(stream, *(f"memory {i} " + "x" * 1000 for i in range(64)))
    with monkeypatch.context() as patched, capture_logs() as said:
        patched.setattr(database_module, "_SQLITE_PRAGMAS", pragmas)
        full = Worker(stream, Database(url), redis_url)
        for _ in range(3):
            full.drain.run()
    reasons = [event["reason"] for event in said if event["event"] == "drain_interrupted"]
    assert len(reasons) == 3
    assert all("full" in reason for reason in reasons)
    assert stream.n_unacknowledged() == 64
    assert MemoryStore(roomy).counts().stored == 0
    Worker(stream, roomy, redis_url).drain.run()
    assert MemoryStore(roomy).counts().stored == EventLog(roomy).head() == 64
    assert sum(stream.waiting().values()) == DeadLetters(roomy).count() == 0
    assert_events_contiguous(roomy)
    assert_one_row_a_key(roomy)


@contextlib.contextmanager
def limited(stack: Stack, *, room: int | None = None, most: int | None = None) -> Iterator[None]:
    """Limit Redis's memory for the block: to so many bytes, or what it uses now and `room` more."""
    with stack.redis("ingest") as server:
        used = int(server.info("memory")["used_memory"])  # type: ignore[index]
        server.config_set("maxmemory", used + room if room is not None else most)
        try:
            yield
        finally:
            server.config_set("maxmemory", 0)


@contextlib.contextmanager
def filled(stack: Stack) -> Iterator[None]:
    """Let somebody else keep a few megabytes in Redis for the block."""
    with stack.redis("results") as server:
        server.setrange("of somebody else", 4 * _MIB, b"x")
        try:
            yield
        finally:
            server.delete("of somebody else")


def pids_of(stack: Stack) -> set[int]:
    return {stack.child(name).pid for name in _PROCESSES}
