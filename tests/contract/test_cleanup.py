"""Cleanup forgets what is both old and unimportant, in batches, with a brake, once a period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from memory.broker import Nudger, make_celery
from memory.cleanup import CleanupPolicy, clean_up
from memory.database import Database
from memory.errors import CleanupBraked
from memory.models import MemoryType
from memory.pending import Requeuer
from memory.schema import job_runs
from memory.settings import read_settings
from memory.store.jobs import JobRun, Jobs
from memory.store.memories import MemoryStore
from memory.store.pending import PendingRows
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch
from tests.invariants import assert_events_contiguous, assert_index_equals_database
from tests.making import caught_up, open_index, raw, store_all
from workers.maintenance import Maintenance

OLD = datetime.now(UTC) - timedelta(days=40)
NEW = datetime.now(UTC) - timedelta(days=20)


def test_only_what_is_both_old_and_unimportant_is_forgotten(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    store_all(
        database,
        raw("old and unimportant", created_at=OLD, metadata={"importance": 0.1}),
        raw("old and important", created_at=OLD, metadata={"importance": 0.3}),
        raw("old and neutral", created_at=OLD),
        raw("new and unimportant", created_at=NEW, metadata={"importance": 0.1}),
    )
    dry = clean_up(database, CleanupPolicy(), dry_run=True)
    assert (dry.total_found, dry.deleted, dry.skipped) == (1, 0, 1)
    assert MemoryStore(database).counts().stored == 4
    real = clean_up(database, CleanupPolicy(), dry_run=False)
    assert (real.total_found, real.deleted, real.skipped, real.by_namespace) == (1, 1, 0, {"default": 1})
    counts = MemoryStore(database).counts()
    assert (counts.stored, counts.deleted) == (3, 1)
    assert_index_equals_database(caught_up(sync))


def test_a_recent_recall_keeps_an_old_memory(database: Database) -> None:
    [memory_id] = store_all(database, raw("old", created_at=OLD, metadata={"importance": 0.1}))
    MemoryStore(database).touch([memory_id], not_since=timedelta(hours=1))
    assert clean_up(database, CleanupPolicy(), dry_run=False).total_found == 0


def test_cleanup_can_be_bounded_to_types_and_a_namespace(database: Database) -> None:
    fields = {"created_at": OLD, "metadata": {"importance": 0.1}}
    store_all(
        database,
        raw("a", memory_type="task", namespace="x", **fields),
        raw("b", memory_type="episodic", namespace="x", **fields),
        raw("c", memory_type="task", namespace="y", **fields),
    )
    policy = CleanupPolicy(memory_types=(MemoryType.TASK,), namespace="x")
    assert clean_up(database, policy, dry_run=False).deleted == 1
    assert MemoryStore(database).counts().stored == 2


def test_the_brake_stops_a_cleanup_that_would_remove_too_much(database: Database) -> None:
    store_all(database, *(raw(f"m {i}", created_at=OLD, metadata={"importance": 0.0}) for i in range(30)))
    policy = CleanupPolicy(brake_share=0.2, brake_count=20)
    for dry_run in (True, False):
        with pytest.raises(CleanupBraked, match="30 of the 30"):
            clean_up(database, policy, dry_run=dry_run)
    assert MemoryStore(database).counts().stored == 30
    assert clean_up(database, policy, dry_run=False, force=True).deleted == 30
    assert_events_contiguous(database)


def test_the_brake_lets_a_small_share_pass(database: Database) -> None:
    store_all(database, *(raw(f"kept {i}") for i in range(40)))
    store_all(database, *(raw(f"m {i}", created_at=OLD, metadata={"importance": 0.0}) for i in range(5)))
    assert clean_up(database, CleanupPolicy(brake_count=3), dry_run=False).deleted == 5


def test_more_than_a_batch_is_forgotten_in_one_run(database: Database) -> None:
    raws = [raw(f"m {i}", created_at=OLD, metadata={"importance": 0.0}) for i in range(1100)]
    store_all(database, *raws)
    assert clean_up(database, CleanupPolicy(), dry_run=False, force=True).deleted == 1100
    assert_events_contiguous(database)


def test_a_cleanup_shows_progress_after_each_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.cleanup.BATCH", 10)
    _store_old(database, 25)
    stored: list[int] = []
    clean_up(
        database,
        CleanupPolicy(),
        dry_run=False,
        on_progress=lambda: stored.append(MemoryStore(database).counts().stored),
    )
    assert stored == [15, 5, 0]


def test_a_cleanup_told_to_stop_ends_after_a_batch_and_the_next_one_does_the_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.cleanup.BATCH", 10)
    _store_old(database, 25)
    store_all(database, *(raw(f"kept {i}") for i in range(75)))
    policy = CleanupPolicy(brake_share=0.25, brake_count=1)
    first = clean_up(database, policy, dry_run=False, should_stop=lambda: True)
    assert (first.total_found, first.deleted, first.skipped, first.stopped_early) == (25, 10, 15, True)
    rest = clean_up(database, policy, dry_run=False)
    assert (rest.total_found, rest.deleted, rest.skipped, rest.stopped_early) == (15, 15, 0, False)
    assert_events_contiguous(database)


def test_a_cleanup_past_its_budget_goes_on_at_the_next_tick_and_is_well_meanwhile(
    database: Database, stream: IngestStream, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.cleanup.BATCH", 10)
    monkeypatch.setattr("workers.maintenance.BUDGET_S", 0.0)
    _store_old(database, 25)
    touches: list[int] = []
    maintenance = _maintenance(database, stream, redis_url, touches)
    maintenance.tick()  # the first period starts
    _pass_time(database, timedelta(days=2))
    left = []
    for _ in range(4):
        maintenance.tick()
        left.append((MemoryStore(database).counts().stored, _cleanup_job(database).lease_until))
    assert left == [(15, None), (5, None), (0, None), (0, None)]
    assert len(touches) == 5 + 3  # each tick, and each batch
    last_ok_at = _cleanup_job(database).last_ok_at
    assert last_ok_at is not None
    assert datetime.now(UTC) - last_ok_at < timedelta(minutes=5)


def test_f11_a_job_is_claimed_once_a_period_by_one_owner(database: Database) -> None:
    jobs, day, lease = Jobs(database), timedelta(days=1), timedelta(minutes=15)
    assert not jobs.claim("cleanup", every=day, lease=lease, owner="a")  # the first period starts now
    _pass_time(database, timedelta(hours=25))
    assert jobs.claim("cleanup", every=day, lease=lease, owner="a")
    assert not jobs.claim("cleanup", every=day, lease=lease, owner="b")
    jobs.finish("cleanup", owner="a", ok=True, result="{}")
    assert not jobs.claim("cleanup", every=day, lease=lease, owner="b")
    _pass_time(database, timedelta(days=30))  # a month of outage is one run
    assert jobs.claim("cleanup", every=day, lease=lease, owner="b")
    jobs.finish("cleanup", owner="b", ok=True, result="{}")
    assert not jobs.claim("cleanup", every=day, lease=lease, owner="a")


def test_a_job_whose_owner_died_is_due_again_when_its_lease_ends(database: Database) -> None:
    jobs, day, lease = Jobs(database), timedelta(days=1), timedelta(minutes=15)
    jobs.claim("cleanup", every=day, lease=lease, owner="a")
    _pass_time(database, timedelta(hours=25))
    assert jobs.claim("cleanup", every=day, lease=lease, owner="a")
    _pass_time(database, timedelta(minutes=16))
    assert jobs.claim("cleanup", every=day, lease=lease, owner="b")


def _store_old(database: Database, n: int) -> None:
    store_all(database, *(raw(f"m {i}", created_at=OLD, metadata={"importance": 0.0}) for i in range(n)))


def _maintenance(database: Database, stream: IngestStream, redis_url: str, touches: list[int]) -> Maintenance:
    settings = read_settings(redis_url=redis_url)
    return Maintenance(
        settings=settings,
        database=database,
        jobs=Jobs(database),
        requeuer=Requeuer(PendingRows(database), stream, StreamWatch(redis_url)),
        nudger=Nudger(make_celery(settings), stream),
        owner="a",
        on_progress=lambda: touches.append(1),
        should_stop=lambda: False,
    )


def _cleanup_job(database: Database) -> JobRun:
    [job] = [j for j in Jobs(database).all() if j.name == "cleanup"]
    return job


def _pass_time(database: Database, passed: timedelta) -> None:
    job = _cleanup_job(database)
    with database.write() as connection:
        connection.execute(
            update(job_runs).values(
                last_ok_at=job.last_ok_at - passed if job.last_ok_at else None,
                lease_until=job.lease_until - passed if job.lease_until else None,
            )
        )
