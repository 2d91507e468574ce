"""The state of the whole pipeline in one look: counts by state, what lags, and the verdict."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memory.store.jobs import AUDIT, CLEANUP, TICKER
from memory.store.lags import read_lags
from memory.store.memories import MemoryStore
from memory.verdict import Limits, Verdict, Vitals, judge

if TYPE_CHECKING:
    from memory.database import Database
    from memory.store.lags import JobLag, Lags
    from memory.stream_watch import StreamVitals, StreamWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Vitals):
    """Counts of memories, not of messages, beside the facts that are judged.

    `accepted` is what was taken on and is not deleted: `waiting` + `stored` + `dead`, where a stored memory
    that waits on the stream for its embedding counts once. `searchable` is the part of `stored` that a
    search finds now.
    """

    accepted: int
    stored: int
    searchable: int
    deleted: int
    applied_seq: int
    snapshot_seq: int
    jobs: dict[str, dict[str, Any]]
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, the verdict first."""
        facts = {**asdict(self), "waiting": self.waiting}
        return {"verdict": self.verdict.as_json(), **{k: v for k, v in facts.items() if k != "verdict"}}


def read_vitals(database: Database, stream: StreamWatch) -> Vitals:
    """Look at what is judged, and no more: cheap, however many memories there are.

    Raises:
        ServerAway: Redis or the database cannot be reached.

    """
    return Vitals(**_vitals(stream.read(), read_lags(database)))


def read_status(database: Database, stream: StreamWatch, *, limits: Limits) -> Status:
    """Look at database and streams.

    The streams are read first: what moves on meanwhile is counted twice rather than not at all.

    Raises:
        ServerAway: Redis or the database cannot be reached.

    """
    at_stream = stream.read()
    lags = read_lags(database)
    counts = MemoryStore(database).counts()
    vitals = _vitals(at_stream, lags)
    n_waiting = at_stream.waiting_fast + at_stream.waiting_bulk
    return Status(
        **vitals,
        accepted=max(0, n_waiting - lags.pending) + counts.stored + lags.dead,
        stored=counts.stored,
        searchable=counts.searchable,
        deleted=counts.deleted,
        applied_seq=lags.applied_seq,
        snapshot_seq=lags.snapshot_seq,
        jobs={name: asdict(job) for name, job in lags.jobs.items()},
        verdict=judge(Vitals(**vitals), limits),
    )


def _vitals(stream: StreamVitals, lags: Lags) -> dict[str, Any]:
    audit, ticker = lags.jobs.get(AUDIT), lags.jobs.get(TICKER)
    return {
        **asdict(stream),
        "pending": lags.pending,
        "oldest_pending_s": lags.oldest_pending_s,
        "events_behind": lags.head - lags.applied_seq,
        "behind_s": lags.behind_s,
        "indexer_seen_s": lags.indexer_seen_s,
        "unsaved_s": lags.unsaved_s,
        "snapshot_age_s": lags.snapshot_age_s,
        "ticker_s": ticker.last_ok_s if ticker else None,
        "dead": lags.dead,
        "audit_s": audit.last_ok_s if audit else None,
        "audit_problem": _audit_problem(audit),
        "cleanup_stopped": _cleanup_stopped(lags.jobs.get(CLEANUP)),
    }


def _audit_problem(audit: JobLag | None) -> str | None:
    result = _object(audit.last_result) if audit and audit.last_result else None
    return None if result is None or result.get("clean") else str(result.get("summary") or "a difference")


def _cleanup_stopped(cleanup: JobLag | None) -> str | None:
    """Return the reason of a run that was stopped: a report is a JSON object, a reason is none."""
    said = cleanup.last_result if cleanup else None
    return said if said and _object(said) is None else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
