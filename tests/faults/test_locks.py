"""F7, F12, F22: whoever else writes, a batch waits, is tried again, and is stored once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update
from structlog.testing import capture_logs

from ingest.producer import Producer
from memory import database as database_module
from memory.broker import Nudger, make_celery
from memory.database import Database
from memory.models import Seq
from memory.schema import index_clock
from memory.settings import read_settings
from memory.store.dead_letters import DeadLetters
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from tests.contract.test_drain import Worker, push
from tests.faults.threads import together
from tests.invariants import assert_events_contiguous, assert_index_equals_database, assert_one_row_a_key
from tests.making import caught_up, open_index, raw, store_all
from tests.servers import Postgres
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

N = 20


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a lock gives up after a fifth of a second."""
    options = "-c lock_timeout=200ms -c idle_in_transaction_session_timeout=30s -c timezone=UTC"
    monkeypatch.setitem(database_module._POSTGRES_OPTIONS, "options", options)
    pragmas = [p for p in database_module._SQLITE_PRAGMAS if "busy" not in p]
    monkeypatch.setattr(database_module, "_SQLITE_PRAGMAS", (*pragmas, "busy_timeout=200"))


@contextmanager
def database_with(postgres: Postgres, setting: str) -> Iterator[Database]:
    """Open a database of its own on Postgres, all connections to which have this setting."""
    url = postgres.new_database()
    for_all = Database(url)
    with for_all.write() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f"ALTER DATABASE {name} SET {setting}"))
    for_all.close()
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def slow_to_see_deadlocks(postgres: Postgres) -> Iterator[Database]:
    with database_with(postgres, "deadlock_timeout = '3s'") as database:
        yield database


@pytest.fixture
def repeatable_reads(postgres: Postgres) -> Iterator[Database]:
    with database_with(postgres, "default_transaction_isolation = 'repeatable read'") as database:
        yield database


@contextmanager
def clock_held(database: Database) -> Iterator[Connection]:
    """Hold what every writer needs last: the clock's row; on SQLite, the right to write at all."""
    with database.write() as connection:
        connection.execute(select(index_clock).with_for_update())
        yield connection


@pytest.mark.usefixtures("impatient")
def test_f07_a_batch_that_waits_too_long_for_a_lock_is_kept_and_stored_once_when_it_is_free(
    stream: IngestStream, database_url: str, redis_url: str
) -> None:
    database, holder = Database(database_url), Database(database_url)
    database.upgrade()
    push(stream, *(f"memory {i}" for i in range(N)))
    worker = Worker(stream, database, redis_url)
    with clock_held(holder):
        for _ in range(3):
            with capture_logs() as said:
                worker.drain.run()
            assert [event["event"] for event in said] == ["drain_interrupted"]
            assert_nothing_was_acknowledged(stream, holder)
    worker.drain.run()
    assert_stored_once(stream, database)


def test_f07_a_batch_that_loses_a_deadlock_is_kept_and_stored_once_afterwards(
    stream: IngestStream, slow_to_see_deadlocks: Database, redis_url: str
) -> None:
    database = slow_to_see_deadlocks
    push(stream, *(f"memory {i:02}" for i in range(N)))
    worker = Worker(stream, database, redis_url)
    with capture_logs() as said, clock_held(database) as opponent:
        opponent.execute(text("SET LOCAL deadlock_timeout = '10min'"))  # it waits on: the batch must lose
        opponent.execute(text("SET LOCAL lock_timeout = 0"))
        drain = threading.Thread(target=worker.drain.run)
        drain.start()
        wait_until(lambda: n_waiting_for_locks(database) == 1, timeout_s=60, why="the batch waits")
        opponent.execute(  # for a row that the batch wrote and did not commit
            text(
                "INSERT INTO memories (namespace, uid, content, type, source, metadata, created_at,"
                " stored_at, status, version)"
                " VALUES ('default', 'memory 00', 'mine', 'task', 'test', '{}', now(), now(), 'pending', 1)"
            )
        )
        drain.join()
        assert "deadlock detected" in interruption(said)
        assert_nothing_was_acknowledged(stream, database)
        opponent.rollback()
    worker.drain.run()
    assert_stored_once(stream, database)


def test_f07_a_batch_that_cannot_be_serialized_is_kept_and_stored_once_afterwards(
    stream: IngestStream, repeatable_reads: Database, redis_url: str
) -> None:
    database = repeatable_reads
    push(stream, *(f"memory {i}" for i in range(N)))
    worker = Worker(stream, database, redis_url)
    with capture_logs() as said:
        with clock_held(database) as opponent:
            drain = threading.Thread(target=worker.drain.run)
            drain.start()
            wait_until(lambda: n_waiting_for_locks(database) == 1, timeout_s=60, why="the batch waits")
            opponent.execute(update(index_clock).values(head=index_clock.c.head))
        drain.join()
    assert "could not serialize" in interruption(said)
    assert_nothing_was_acknowledged(stream, database)
    worker.drain.run()
    assert_stored_once(stream, database)


def test_f12_a_memory_that_a_hundred_enqueue_at_once_has_one_row_and_one_vector(
    stream: IngestStream, database: Database, redis_url: str, home: Path
) -> None:
    settings = read_settings(redis_url=redis_url)
    producer = Producer(stream=stream, nudger=Nudger(make_celery(settings), stream), max_content_bytes=1000)
    workers = [
        Worker(stream, database, redis_url, name=f"embed-{n}", settings={"embed_batch": 5}) for n in (1, 2)
    ]

    all_are_there = threading.Event()

    def enqueue_all() -> None:
        try:
            together(
                *(lambda n=n: producer.enqueue(raw(f"said the {n}th time", uid="same")) for n in range(100))
            )
        finally:
            all_are_there.set()

    def drain(worker: Worker) -> None:
        while not all_are_there.is_set():
            worker.drain.run()
        worker.drain.run()

    together(enqueue_all, *(lambda w=w: drain(w) for w in workers))
    assert sum(stream.waiting().values()) == 0
    assert MemoryStore(database).counts().stored == 1
    assert EventLog(database).head() == 1
    sync = caught_up(open_index(database, home))
    assert sync.compare().n_memories == 1
    assert_index_equals_database(sync)


def test_f22_eight_writers_leave_no_gap_and_no_double_and_who_follows_them_skips_nothing(
    database: Database,
) -> None:
    all_is_written = threading.Event()
    seen: list[Seq] = []

    def write(writer: int) -> None:
        for i in range(12):
            batch = [raw(f"memory {i} {j}", uid=f"{i}-{j}") for j in range(4)]
            own = store_all(database, *batch, raw(f"own {writer} {i}", uid=f"own-{writer}-{i}"))[-1]
            if i % 4 == 0:
                MemoryStore(database).delete(own)

    def write_all() -> None:
        try:
            together(*(lambda n=n: write(n) for n in range(8)))
        finally:
            all_is_written.set()

    def follow() -> None:
        log = EventLog(database)
        while True:
            is_last_look = all_is_written.is_set()
            events = log.after(seen[-1] if seen else Seq(0), limit=1000)
            seen.extend(event.seq for event in events)
            if is_last_look:
                return

    together(write_all, follow)
    n_events = 12 * 4 + 8 * 12 + 8 * 3
    assert seen == list(range(1, n_events + 1))
    assert EventLog(database).head() == n_events
    assert MemoryStore(database).counts().stored == 12 * 4 + 8 * 9
    assert_events_contiguous(database)
    assert_one_row_a_key(database)


def assert_nothing_was_acknowledged(stream: IngestStream, database: Database) -> None:
    assert stream.n_unacknowledged() == sum(stream.waiting().values()) == N
    assert MemoryStore(database).counts().stored == 0


def assert_stored_once(stream: IngestStream, database: Database) -> None:
    assert MemoryStore(database).counts().stored == EventLog(database).head() == N
    assert sum(stream.waiting().values()) == stream.n_unacknowledged() == 0
    assert DeadLetters(database).count() == 0
    assert_events_contiguous(database)
    assert_one_row_a_key(database)


def interruption(said: list[Any]) -> str:
    return next(str(event["reason"]) for event in said if event["event"] == "drain_interrupted")


def n_waiting_for_locks(database: Database) -> int:
    statement = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.read() as connection:
        return connection.scalar(statement) or 0
