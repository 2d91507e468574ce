"""The verdict is monotone: whatever gets worse, it never gets better by that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memory.verdict import Limits, State, Vitals, judge
from tests.unit.test_verdict import AT_REST, RULES

ORDER = list(State)
LIMITS = st.builds(
    Limits,
    stuck_after_s=st.floats(1, 3600),
    ticker_every_s=st.floats(0.5, 3600),
    snapshot_every_s=st.floats(1, 86_400),
    audit_every_s=st.floats(1, 31_536_000),
)

_COUNT = st.integers(0, 10**6)
_AGE = st.floats(0, 10**6)
_COUNTS = ("waiting_fast", "waiting_bulk", "n_redelivered", "pending", "events_behind", "dead")
_AGES = (
    "oldest_waiting_s",
    "taken_s",
    "oldest_pending_s",
    "behind_s",
    "indexer_seen_s",
    "unsaved_s",
    "ticker_s",
    "audit_s",
    "redis_memory_share",
)
FACTS = st.fixed_dictionaries({**dict.fromkeys(_COUNTS, _COUNT), **dict.fromkeys(_AGES, _AGE)})


@given(facts=FACTS, more=FACTS, limits=LIMITS, worse=st.sets(st.sampled_from([*_COUNTS, *_AGES])))
def test_more_of_a_problem_never_improves_the_verdict(
    facts: dict[str, Any], more: dict[str, Any], limits: Limits, worse: set[str]
) -> None:
    grown = {name: facts[name] + more[name] for name in worse}
    before, after = _judged(limits, **facts), _judged(limits, **{**facts, **grown})
    assert ORDER.index(after) >= ORDER.index(before)


@given(chosen=st.sets(st.sampled_from(range(len(RULES)))))
def test_the_verdict_is_at_least_as_bad_as_the_worst_problem(chosen: set[int]) -> None:
    facts: dict[str, Any] = {}
    for n in sorted(chosen, key=lambda n: ORDER.index(RULES[n][2])):  # of two on one fact the worse counts
        facts |= RULES[n][1]
    worst = max((ORDER.index(RULES[n][2]) for n in chosen), default=0)
    assert ORDER.index(_judged(Limits(), **facts)) >= worst


def _judged(limits: Limits, **facts: Any) -> State:
    vitals: Vitals = replace(AT_REST, **facts)
    return judge(vitals, limits).state
