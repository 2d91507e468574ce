"""The verdict on the pipeline: each rule alone, the worst wins, and the reason names what to look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memory.verdict import LAGGING_AFTER_S, PENDING_TOO_LONG_S, Limits, State, Vitals, judge

LIMITS = Limits(stuck_after_s=60, ticker_every_s=60, snapshot_every_s=60, audit_every_s=3600)
DAY_S = 86_400.0

AT_REST = Vitals(
    waiting_fast=0,
    waiting_bulk=0,
    unacknowledged=0,
    oldest_waiting_s=None,
    taken_s=DAY_S,
    n_redelivered=0,
    pending=0,
    oldest_pending_s=None,
    events_behind=0,
    behind_s=None,
    indexer_seen_s=5,
    unsaved_s=None,
    snapshot_age_s=DAY_S,
    ticker_s=30,
    dead=0,
    audit_s=600,
    audit_problem=None,
    cleanup_stopped=None,
    redis_warnings=(),
    redis_memory_share=0.1,
)

RULES: list[tuple[str, dict[str, Any], State, str]] = [
    (
        "a backlog that nobody takes",
        {"waiting_fast": 7, "oldest_waiting_s": 75, "taken_s": 70},
        State.STUCK,
        "7 memories wait to be stored, the oldest for 75 s, and none got on for 70 s: is an embed worker",
    ),
    (
        "a backlog of which nothing was ever taken",
        {"waiting_bulk": 7, "oldest_waiting_s": 75, "taken_s": None},
        State.STUCK,
        "none was ever stored",
    ),
    (
        "a backlog that moves, however long it is",
        {"waiting_bulk": 900_000, "unacknowledged": 256, "oldest_waiting_s": 7200, "taken_s": 3},
        State.LAGGING,
        "900000 memories wait to be stored, the oldest for 2 h; they are being stored",
    ),
    ("entries delivered again and again", {"n_redelivered": 2}, State.DEGRADED, "2 entries were delivered"),
    (
        "events that a silent indexer leaves",
        {"events_behind": 3, "behind_s": 75, "indexer_seen_s": 70},
        State.STUCK,
        "the index is 3 events behind, the oldest for 75 s, and the indexer showed itself last 70 s ago",
    ),
    (
        "events that no indexer ever applied",
        {"events_behind": 3, "behind_s": 75, "indexer_seen_s": None},
        State.STUCK,
        "showed itself never: is it running? See logs/indexer.log",
    ),
    (
        "events that a living indexer applies",
        {"events_behind": 40_000, "behind_s": 300, "indexer_seen_s": 1},
        State.LAGGING,
        "40000 events behind, the oldest for 5 min; they are being applied",
    ),
    ("a ticker that is late", {"ticker_s": 200}, State.DEGRADED, "the ticker last ran 3 min ago"),
    (
        "a late ticker while rows wait that only it moves",
        {"ticker_s": 200, "pending": 4, "oldest_pending_s": 200},
        State.STUCK,
        "the ticker last ran 3 min ago: are beat and an embed worker running?",
    ),
    (
        "rows that wait for an embedding",
        {"pending": 4, "oldest_pending_s": LAGGING_AFTER_S + 1},
        State.LAGGING,
        "4 stored memories wait for their embedding",
    ),
    (
        "rows that wait for an embedding for over an hour",
        {"pending": 4, "oldest_pending_s": PENDING_TOO_LONG_S + 1},
        State.DEGRADED,
        "4 stored memories wait for their embedding, the oldest for 60 min",
    ),
    ("changes that are long in no snapshot", {"unsaved_s": 660}, State.DEGRADED, "since 11 min"),
    ("an audit that is overdue", {"audit_s": 4 * 3600}, State.DEGRADED, "the last audit was 4 h ago"),
    (
        "an audit that found a difference",
        {"audit_problem": "1 memories that the index lacks"},
        State.DEGRADED,
        "the last audit found: 1 memories that the index lacks. Run memory verify --repair",
    ),
    ("dead letters", {"dead": 2}, State.DEGRADED, "2 dead letters: see memory dlq list"),
    (
        "a cleanup that the brake stopped",
        {"cleanup_stopped": "cleanup would remove 2000 of 3000"},
        State.DEGRADED,
        "the last cleanup stopped: cleanup would remove 2000 of 3000",
    ),
    (
        "a Redis that keeps nothing",
        {"redis_warnings": ("Redis runs without appendonly",)},
        State.DEGRADED,
        "Redis runs without appendonly",
    ),
    ("a Redis that is nearly full", {"redis_memory_share": 0.71}, State.DEGRADED, "71% of its maxmemory"),
]


def test_a_pipeline_at_rest_is_ok_however_long_it_rests() -> None:
    verdict = judge(AT_REST, LIMITS)
    assert (verdict.state, verdict.problems, verdict.needs_a_look) == (State.OK, (), False)


def test_a_pipeline_that_was_just_made_is_ok() -> None:
    new = replace(
        AT_REST, taken_s=None, indexer_seen_s=None, snapshot_age_s=None, ticker_s=None, audit_s=None
    )
    assert judge(new, LIMITS).state is State.OK


def test_a_burst_after_a_long_rest_is_ok_while_it_is_young() -> None:
    burst = replace(
        AT_REST,
        waiting_fast=50,
        oldest_waiting_s=2,
        taken_s=DAY_S,
        events_behind=9,
        behind_s=1,
        indexer_seen_s=DAY_S,
    )
    assert judge(burst, LIMITS).state is State.OK


@pytest.mark.parametrize(("facts", "state", "said"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_each_problem_alone_has_its_state_and_says_what_it_is(
    facts: dict[str, Any], state: State, said: str
) -> None:
    verdict = judge(replace(AT_REST, **facts), LIMITS)
    assert verdict.state is state
    assert said in verdict.reason
    assert verdict.needs_a_look is (state in {State.DEGRADED, State.STUCK})


def test_of_several_problems_the_worst_wins_and_all_are_named_worst_first() -> None:
    facts: dict[str, Any] = {"dead": 1, "events_behind": 3, "behind_s": 75, "indexer_seen_s": 70}
    verdict = judge(
        replace(AT_REST, waiting_bulk=9, oldest_waiting_s=600, taken_s=1, **facts),
        LIMITS,
    )
    assert verdict.state is State.STUCK
    assert [problem.state for problem in verdict.problems] == [State.STUCK, State.DEGRADED, State.LAGGING]
    index, dead, backlog = verdict.reason.split("; ", 2)
    assert index.startswith("the index is 3 events behind")
    assert dead.startswith("1 dead letters")
    assert backlog.startswith("9 memories wait")


def test_a_part_that_is_stuck_leaves_the_other_ones_healthy() -> None:
    verdict = judge(replace(AT_REST, events_behind=3, behind_s=75, indexer_seen_s=70), LIMITS)
    assert verdict.is_stuck("index")
    assert not verdict.is_stuck("ingest")
