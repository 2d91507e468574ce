"""The status of a pipeline: its facts are those of the streams and the database, by their own clocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import update

from memory.database import Database, database_now
from memory.models import MemoryId
from memory.schema import index_events, job_runs, memories
from memory.status import Status, read_status, read_vitals
from memory.store.dead_letters import DeadLetters
from memory.store.jobs import AUDIT, CLEANUP, TICKER, Jobs
from memory.store.memories import MemoryStore
from memory.stream import LANES, IngestStream
from memory.stream_watch import StreamWatch
from memory.verdict import Limits
from tests.making import caught_up, open_index, raw, store_all


@pytest.fixture
def watch(redis_url: str, stream: IngestStream) -> Iterator[StreamWatch]:
    watch = StreamWatch(redis_url)
    yield watch
    watch.close()


def look(database: Database, watch: StreamWatch) -> Status:
    return read_status(database, watch, limits=Limits())


def test_a_new_pipeline_has_nothing_waiting_and_nothing_late(database: Database, watch: StreamWatch) -> None:
    status = look(database, watch)
    assert (status.waiting, status.unacknowledged, status.events_behind, status.dead) == (0, 0, 0, 0)
    ages = (status.oldest_waiting_s, status.behind_s, status.unsaved_s, status.ticker_s, status.audit_s)
    assert ages == (None, None, None, None, None)
    assert {problem.part for problem in status.verdict.problems} <= {"care"}  # of the Redis alone


def test_what_waits_is_counted_by_lane_with_its_age_and_what_is_in_hand(
    database: Database, watch: StreamWatch, stream: IngestStream
) -> None:
    stream.push([b"one", b"two"], lane="bulk")
    stream.push([b"three"], lane="fast")
    for lane in LANES:
        stream.read_new("embed-1", count=1, lanes=(lane,))
    status = look(database, watch)
    assert (status.waiting_fast, status.waiting_bulk, status.unacknowledged) == (1, 2, 2)
    assert status.oldest_waiting_s is not None
    assert 0 <= status.oldest_waiting_s < 60
    assert status.accepted == 3


def test_only_what_gets_on_counts_as_progress(
    database: Database, watch: StreamWatch, stream: IngestStream, redis_url: str
) -> None:
    _age_progress(redis_url, by_s=500)
    stream.push([b"one"], lane="bulk")
    [entry] = stream.read_new("embed-1", count=1)
    stream.uncount_delivery([entry], consumer="embed-1")
    assert _taken_s(database, watch) > 499, "a worker that reads and gives up gets nowhere"
    stream.keep([entry], consumer="embed-1")
    assert _taken_s(database, watch) < 60, "a batch that passes through the model does"
    _age_progress(redis_url, by_s=500)
    stream.acknowledge([entry])
    assert _taken_s(database, watch) < 60, "and so does one that is done"


def test_a_start_is_no_progress(
    database: Database, watch: StreamWatch, stream: IngestStream, redis_url: str
) -> None:
    _age_progress(redis_url, by_s=500)
    stream.ensure_groups()
    assert _taken_s(database, watch) > 499


def test_an_entry_delivered_again_and_again_is_counted(
    database: Database, watch: StreamWatch, stream: IngestStream
) -> None:
    stream.push([b"poison", b"good"], lane="fast")
    stream.read_new("embed-1", count=2)
    for _ in range(2):
        first = stream.pending(consumer=None, min_idle_s=0, count=1)
        stream.claim(first, consumer="embed-1", min_idle_s=0)
    assert read_vitals(database, watch).n_redelivered == 1


def test_a_server_without_the_streams_is_no_error(
    database: Database, watch: StreamWatch, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
    status = look(database, watch)
    assert (status.waiting, status.taken_s, status.oldest_waiting_s) == (0, None, None)


def test_events_and_snapshots_have_their_ages(database: Database, watch: StreamWatch, home: Path) -> None:
    sync = open_index(database, home)
    store_all(database, raw("one"), raw("two"))
    _age_events(database, by=timedelta(seconds=90))
    status = look(database, watch)
    assert status.events_behind == 2
    assert (status.behind_s or 0) > 89
    assert (status.unsaved_s or 0) > 89
    assert status.indexer_seen_s is not None
    assert status.indexer_seen_s < 60
    caught_up(sync).save_snapshot()
    status = look(database, watch)
    assert (status.events_behind, status.behind_s, status.unsaved_s) == (0, None, None)
    assert status.snapshot_age_s is not None


def test_rows_that_wait_for_an_embedding_and_dead_letters_are_counted(
    database: Database, watch: StreamWatch
) -> None:
    first, _, gone = store_all(database, raw("one"), raw("two"), raw("three"))
    with database.write() as connection:
        waits = {"status": "pending", "embedding": None, "stored_at": database_now(connection)}
        connection.execute(update(memories).where(memories.c.id.in_([first, gone])).values(**waits))
    MemoryStore(database).delete(MemoryId(gone))
    DeadLetters(database).bury(entry_id="bulk:1", key=None, body=b"x", reason="no", n_deliveries=1)
    vitals = read_vitals(database, watch)
    assert (vitals.pending, vitals.dead) == (1, 1)
    assert vitals.oldest_pending_s is not None
    assert vitals.oldest_pending_s < 60


def test_the_jobs_last_results_are_told(database: Database, watch: StreamWatch) -> None:
    jobs = Jobs(database)
    jobs.mark(TICKER, owner="t")
    jobs.record(AUDIT, owner="t", result=json.dumps({"clean": False, "summary": "1 odd thing"}))
    jobs.record(CLEANUP, owner="t", result="cleanup would remove 9 of the 10 memories")
    with database.write() as connection:
        ago = database_now(connection) - timedelta(seconds=90)
        connection.execute(update(job_runs).where(job_runs.c.name == TICKER).values(last_ok_at=ago))
    status = look(database, watch)
    assert (status.ticker_s or 0) > 89
    assert status.audit_problem == "1 odd thing"
    assert status.cleanup_stopped == "cleanup would remove 9 of the 10 memories"
    jobs.record(AUDIT, owner="t", result=json.dumps({"clean": True, "summary": "nothing"}))
    jobs.record(CLEANUP, owner="t", result=json.dumps({"deleted": 1}))
    status = look(database, watch)
    assert (status.audit_problem, status.cleanup_stopped) == (None, None)
    assert json.loads(json.dumps(status.as_json()))["jobs"].keys() == {AUDIT, CLEANUP, TICKER}


def _taken_s(database: Database, watch: StreamWatch) -> float:
    taken_s = read_vitals(database, watch).taken_s
    assert taken_s is not None
    return taken_s


def _age_progress(redis_url: str, *, by_s: int) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        left_ms = int(connection.pttl("mem:in:taken"))
        connection.pexpire("mem:in:taken", left_ms - by_s * 1000)


def _age_events(database: Database, *, by: timedelta) -> None:
    with database.write() as connection:
        connection.execute(update(index_events).values(at=database_now(connection) - by))
