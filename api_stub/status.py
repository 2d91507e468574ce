"""The state of the whole pipeline in one look: counts by state, and what lags."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from memory.store.dead_letters import DeadLetters
from memory.store.event_log import EventLog
from memory.store.jobs import Jobs
from memory.store.memories import MemoryStore

if TYPE_CHECKING:
    from memory.database import Database
    from memory.store.jobs import JobRun
    from memory.stream import IngestStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts of memories, not of messages.

    `accepted` = `waiting` + `stored` + `dead`: what was taken on and is not deleted. `searchable`
    is the part of `stored` that a search finds now.
    """

    accepted: int
    waiting: int  # on the streams
    stored: int
    searchable: int
    dead: int
    deleted: int
    waiting_fast: int
    waiting_bulk: int
    unacknowledged: int  # of the waiting: in a worker's hands
    oldest_waiting_s: float | None
    events_behind: int
    behind_s: float | None  # age of the oldest event that is not applied
    applied_seq: int
    snapshot_seq: int
    snapshot_age_s: float | None
    indexer_seen_s: float | None  # since the owner of the index last wrote its progress
    jobs: dict[str, dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def read_status(database: Database, stream: IngestStream) -> Status:
    """Look at database and streams. Ages in seconds.

    The streams are read first: what moves on meanwhile is counted twice rather than not at all.
    """
    waiting = stream.waiting()
    progress = EventLog(database).progress()
    counts = MemoryStore(database).counts()
    n_waiting = sum(waiting.values())
    dead = DeadLetters(database).count()
    return Status(
        accepted=n_waiting + counts.stored + dead,
        waiting=n_waiting,
        stored=counts.stored,
        searchable=counts.searchable,
        dead=dead,
        deleted=counts.deleted,
        waiting_fast=waiting["fast"],
        waiting_bulk=waiting["bulk"],
        unacknowledged=stream.n_unacknowledged(),
        oldest_waiting_s=stream.oldest_waiting_s(),
        events_behind=progress.head - progress.applied_seq,
        behind_s=_age_s(progress.oldest_unapplied_at),
        applied_seq=progress.applied_seq,
        snapshot_seq=progress.snapshot_seq,
        snapshot_age_s=_age_s(progress.snapshot_at),
        indexer_seen_s=_age_s(progress.updated_at),
        jobs={job.name: _job(job) for job in Jobs(database).all()},
    )


def _job(job: JobRun) -> dict[str, Any]:
    return {
        "last_ok_s": _age_s(job.last_ok_at),
        "running": bool(job.lease_until and job.lease_until > datetime.now(UTC)),
        "last_result": job.last_result,
    }


def _age_s(instant: datetime | None) -> float | None:
    return None if instant is None else round(max(0.0, (datetime.now(UTC) - instant).total_seconds()), 3)
