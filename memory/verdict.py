"""Judges how the pipeline is: one verdict with its reason, from facts alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory.settings import Settings

Part = Literal["ingest", "index", "ticker", "care"]

LAGGING_AFTER_S = 10.0
"""Five ticks: whatever lost its nudge is done long before, so this much is work that piles up."""

LATE_TICKS = 3
"""One tick may be lost, and the next one wait for a drain. Three are no accident."""

LATE_SNAPSHOTS = 10
"""A snapshot that fails is tried again when the next is due; the disk may be full for a moment."""

LATE_AUDITS = 3

AT_LEAST_S = 600.0
"""Never called late sooner, however short the period: a restart takes a moment, too."""

PENDING_TOO_LONG_S = 3600.0
"""Memories without an embedding are put on the stream again every few minutes."""

MEMORY_SHARE = 0.7
"""Past it, producers get `QueueFull`."""


class State(StrEnum):
    """How the pipeline is, the best first."""

    OK = "ok"
    LAGGING = "lagging"  # behind, and moving
    DEGRADED = "degraded"  # it works, but an operator must look
    STUCK = "stuck"  # something waits, and nobody makes progress


_WORSE = list(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What the judge looks at. Ages in seconds, `None`: there is nothing of that age, or it never was."""

    waiting_fast: int  # on the streams
    waiting_bulk: int
    unacknowledged: int  # of the waiting: in a worker's hands
    oldest_waiting_s: float | None
    taken_s: float | None  # since memories were last stored, given up, or got through the model
    n_redelivered: int  # of the unacknowledged: delivered again and again
    pending: int  # rows that wait for an embedding
    oldest_pending_s: float | None
    events_behind: int
    behind_s: float | None  # age of the oldest event that is not applied
    indexer_seen_s: float | None  # since the owner of the index last wrote its progress
    unsaved_s: float | None  # age of the oldest event that is in no snapshot
    snapshot_age_s: float | None
    ticker_s: float | None  # since beat's last maintenance tick was run
    dead: int
    audit_s: float | None  # since the last audit
    audit_problem: str | None  # what the last audit found
    cleanup_stopped: str | None  # why the last cleanup removed nothing
    redis_warnings: tuple[str, ...]
    redis_memory_share: float | None  # of its maxmemory

    @property
    def waiting(self) -> int:
        """How many entries are on the streams."""
        return self.waiting_fast + self.waiting_bulk


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What counts as late."""

    stuck_after_s: float = 60
    ticker_every_s: float = 60
    snapshot_every_s: float = 60
    audit_every_s: float = 3600

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that the settings describe."""
        return cls(
            stuck_after_s=settings.stuck_after_s,
            ticker_every_s=settings.maintenance_tick_s,
            snapshot_every_s=settings.snapshot_every_s,
            audit_every_s=settings.audit_every_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One rule that applies."""

    state: State
    part: Part
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The worst of all problems, and every reason, worst first."""

    state: State
    problems: tuple[Problem, ...]

    @property
    def reason(self) -> str:
        """What is wrong, by how much, and what to look at."""
        return "; ".join(problem.reason for problem in self.problems) or "nothing waits for long"

    @property
    def needs_a_look(self) -> bool:
        """Whether a monitor should call somebody."""
        return self.state in {State.DEGRADED, State.STUCK}

    def is_stuck(self, part: Part) -> bool:
        """Whether nobody makes progress in this part."""
        return any(p.part == part and p.state is State.STUCK for p in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {"state": self.state.value, "reason": self.reason}


def judge(vitals: Vitals, limits: Limits) -> Verdict:
    """Return the verdict: a function of its arguments alone."""
    found = [
        *_ingest(vitals, limits),
        *_index(vitals, limits),
        *_ticker(vitals, limits),
        *_stored_late(vitals, limits),
        *_care(vitals, limits),
    ]
    found.sort(key=lambda problem: -_WORSE.index(problem.state))
    return Verdict(state=found[0].state if found else State.OK, problems=tuple(found))


def _ingest(v: Vitals, limits: Limits) -> Iterator[Problem]:
    oldest_s = v.oldest_waiting_s or 0.0
    waits = f"{v.waiting} memories wait to be stored, the oldest for {_span(oldest_s)}"
    if v.waiting and oldest_s > limits.stuck_after_s and _older(v.taken_s, limits.stuck_after_s):
        last = "none was ever stored" if v.taken_s is None else f"none got on for {_span(v.taken_s)}"
        yield Problem(
            state=State.STUCK,
            part="ingest",
            reason=f"{waits}, and {last}: is an embed worker running? See logs/embed-*.log",
        )
    elif v.waiting and oldest_s > LAGGING_AFTER_S:
        yield Problem(state=State.LAGGING, part="ingest", reason=f"{waits}; they are being stored")
    if v.n_redelivered:
        yield Problem(
            state=State.DEGRADED,
            part="ingest",
            reason=f"{v.n_redelivered} entries were delivered again and again: "
            "what kills the embed worker? See logs/embed-*.log",
        )


def _index(v: Vitals, limits: Limits) -> Iterator[Problem]:
    if v.events_behind <= 0:
        return
    behind = f"the index is {v.events_behind} events behind" + (
        "" if v.behind_s is None else f", the oldest for {_span(v.behind_s)}"
    )
    if _older(v.behind_s, limits.stuck_after_s) and _older(v.indexer_seen_s, limits.stuck_after_s):
        seen = "never" if v.indexer_seen_s is None else f"last {_span(v.indexer_seen_s)} ago"
        yield Problem(
            state=State.STUCK,
            part="index",
            reason=f"{behind}, and the indexer showed itself {seen}: is it running? See logs/indexer.log",
        )
    elif _older(v.behind_s, LAGGING_AFTER_S):
        yield Problem(state=State.LAGGING, part="index", reason=f"{behind}; they are being applied")


def _ticker(v: Vitals, limits: Limits) -> Iterator[Problem]:
    late_after_s = max(LATE_TICKS * limits.ticker_every_s, limits.stuck_after_s)
    is_late = v.ticker_s is not None and v.ticker_s > late_after_s
    pending_s = v.oldest_pending_s or 0.0
    if is_late:
        # Streams and events move by nudges too; pending rows only by the ticker.
        waits = v.pending and pending_s > late_after_s
        yield Problem(
            state=State.STUCK if waits else State.DEGRADED,
            part="ticker",
            reason=f"the ticker last ran {_span(v.ticker_s or 0)} ago: are beat and an embed worker running? "
            "See logs/beat.log",
        )
    if v.pending and pending_s > LAGGING_AFTER_S:
        yield Problem(
            state=State.DEGRADED if pending_s > PENDING_TOO_LONG_S else State.LAGGING,
            part="ticker",
            reason=f"{v.pending} stored memories wait for their embedding, the oldest for {_span(pending_s)}",
        )


def _stored_late(v: Vitals, limits: Limits) -> Iterator[Problem]:
    if v.unsaved_s is not None and v.unsaved_s > max(LATE_SNAPSHOTS * limits.snapshot_every_s, AT_LEAST_S):
        yield _care_for(
            f"changes are in no snapshot since {_span(v.unsaved_s)}: is the index's disk full? "
            "See logs/indexer.log"
        )
    if v.audit_s is not None and v.audit_s > max(LATE_AUDITS * limits.audit_every_s, AT_LEAST_S):
        yield _care_for(f"the last audit was {_span(v.audit_s)} ago: see logs/indexer.log")


def _care(v: Vitals, _limits: Limits) -> Iterator[Problem]:
    if v.audit_problem:
        yield _care_for(f"the last audit found: {v.audit_problem}. Run memory verify --repair")
    if v.dead:
        yield _care_for(f"{v.dead} dead letters: see memory dlq list")
    if v.cleanup_stopped:
        yield _care_for(f"the last cleanup stopped: {v.cleanup_stopped}")
    for warning in v.redis_warnings:
        yield _care_for(warning)
    if v.redis_memory_share is not None and v.redis_memory_share > MEMORY_SHARE:
        yield _care_for(f"Redis uses {v.redis_memory_share:.0%} of its maxmemory: it takes no more memories")


def _care_for(reason: str) -> Problem:
    return Problem(state=State.DEGRADED, part="care", reason=reason)


def _older(age_s: float | None, limit_s: float) -> bool:
    """Whether an age is beyond the limit; one that is not known is."""
    return age_s is None or age_s > limit_s


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
