"""SQL on how far everything is, in one look: ages by the database's own clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select

from memory.database import Database, database_now
from memory.models import Seq
from memory.schema import dead_letters, index_clock, index_events, index_state, job_runs, memories
from memory.store.rows import LIVE

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ScalarSelect


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLag:
    """One scheduled job. Ages in seconds."""

    last_ok_s: float | None
    running: bool
    last_result: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """How far the database's side is. Ages in seconds, `None` where there is nothing of that age."""

    head: Seq
    applied_seq: Seq
    behind_s: float | None
    indexer_seen_s: float | None
    snapshot_seq: Seq
    snapshot_age_s: float | None
    unsaved_s: float | None
    dead: int
    pending: int
    oldest_pending_s: float | None
    jobs: dict[str, JobLag]


def read_lags(database: Database) -> Lags:
    """Look at the clock, the outbox, the owner's place in it and the jobs. No memory is read.

    Raises:
        ServerAway: the database cannot be reached.

    """
    with database.read() as connection:
        now = database_now(connection)
        row = connection.execute(_STATE).one()
        jobs = connection.execute(select(job_runs)).all()
    return Lags(
        head=Seq(row.head),
        applied_seq=Seq(row.applied_seq),
        behind_s=_age_s(now, row.behind),
        indexer_seen_s=_age_s(now, row.updated_at),
        snapshot_seq=Seq(row.snapshot_seq),
        snapshot_age_s=_age_s(now, row.snapshot_at),
        unsaved_s=_age_s(now, row.unsaved),
        dead=row.dead,
        pending=row.pending,
        oldest_pending_s=_age_s(now, row.oldest_pending),
        jobs={
            job.name: JobLag(
                last_ok_s=_age_s(now, job.last_ok_at),
                running=bool(job.lease_until and job.lease_until > now),
                last_result=job.last_result,
            )
            for job in jobs
        },
    )


def _event_after(column: Any) -> ScalarSelect[Any]:
    return select(func.min(index_events.c.at)).where(index_events.c.seq == column + 1).scalar_subquery()


_PENDING = and_(LIVE, memories.c.status == "pending")
_STATE = select(
    index_clock.c.head,
    index_state,
    _event_after(index_state.c.applied_seq).label("behind"),
    _event_after(index_state.c.snapshot_seq).label("unsaved"),
    select(func.count()).select_from(dead_letters).scalar_subquery().label("dead"),
    select(func.count()).select_from(memories).where(_PENDING).scalar_subquery().label("pending"),
    select(func.min(memories.c.stored_at)).where(_PENDING).scalar_subquery().label("oldest_pending"),
).where(index_state.c.id == index_clock.c.id)


def _age_s(now: datetime, instant: datetime | None) -> float | None:
    return None if instant is None else round(max(0.0, (now - instant).total_seconds()), 3)
