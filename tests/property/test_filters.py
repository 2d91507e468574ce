"""Any filter, at any selectivity: a search returns just the rows that meet it, on both databases."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory import relevance
from memory.errors import InvalidMemory
from memory.filters import check_where, filter_of
from memory.memory_manager import MemoryManager
from memory.models import Memory
from tests.fakes import WordEmbedder
from tests.servers import Postgres

N = 120
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
TEXTS = ["Ines", "ines", "É", "Z", "a b", "", "100", "%_", "'; --", "😀", "ﬀ"]
NUMBERS = [0, 1, -1, 1.0, 0.1, 2.5, 1e300, -7, 2**53, 10]
SCALARS = [*TEXTS, *NUMBERS, True, False]
KEYS = ["author", "0", "a key", "nøkkel", "😀"]
LETTERS = "abcdefgh"


def _metadata(chance: random.Random) -> dict[str, Any]:
    def value(depth: int) -> Any:
        kind = chance.randrange(8 if depth < 3 else 6)
        if kind < 5:
            return chance.choice(SCALARS)
        if kind == 5:
            return None
        if kind == 6:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        return {key: value(depth + 1) for key in chance.sample(KEYS, chance.randrange(4))}

    return {key: value(1) for key in chance.sample(KEYS, chance.randrange(len(KEYS)))}


def _drafts() -> list[dict[str, Any]]:
    chance = random.Random(7)
    return [
        {
            "content": f"{chance.choice(LETTERS)} {chance.choice(LETTERS)} {n}",
            "uid": f"{chance.choice(TEXTS).strip() or 'x'}-{n}",
            "source": chance.choice(["chat:1", "chat:2", "Z", "é"]),
            "memory_type": chance.choice(["episodic", "semantic", "task"]),
            "namespace": chance.choice(["one", "one", "one", "two"]),
            "created_at": FIRST + timedelta(hours=n // 2),
            "metadata": _metadata(chance)
            | ({"importance": chance.choice([0, 0.25, 0.5, 1])} if n % 3 else {}),
        }
        for n in range(N)
    ]


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def filled(request: pytest.FixtureRequest, shared_home: Path) -> Iterator[tuple[MemoryManager, list[Memory]]]:
    url = f"sqlite:///{shared_home}/memories.db"
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    with MemoryManager(url, WordEmbedder(), shared_home / f"index-{request.param}") as manager:
        memories = manager.add_memories(_drafts())
        for _ in range(2):  # the second time all of them were found before, and stay as they are
            manager.search_memories("a", namespace="one", limit=N)
        yield manager, memories


scalars = st.sampled_from(SCALARS)
ordered = st.sampled_from([*TEXTS, *NUMBERS])
instants = st.integers(-2, N // 2 + 2).map(lambda hours: FIRST + timedelta(hours=hours))
OPS = {"gt", "gte", "lt", "lte"}


def _tests(values: st.SearchStrategy[Any], in_order: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        values,
        st.fixed_dictionaries({"eq": values}),
        st.fixed_dictionaries({"ne": values}),
        st.fixed_dictionaries({"in": st.lists(values, min_size=1, max_size=4)}),
        st.dictionaries(st.sampled_from(sorted(OPS)), in_order, min_size=1, max_size=2),
    )


exists = st.booleans().map(lambda there: {"exists": there})
paths = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(
    lambda path: ".".join(["metadata", *path])
)
some_fields = st.one_of(
    st.tuples(paths, st.one_of(_tests(scalars, ordered), exists, scalars.map(lambda v: {"contains": v}))),
    st.tuples(
        st.just("memory_type"), st.sampled_from(["episodic", "task", {"ne": "task"}, {"in": ["task"]}])
    ),
    st.tuples(st.just("source"), _tests(st.sampled_from(["chat:1", "Z", "é"]), st.sampled_from(["a", "é"]))),
    st.tuples(st.just("uid"), st.sampled_from(TEXTS).map(lambda part: {"contains": part})),
    st.tuples(st.just("importance"), st.one_of(_tests(st.sampled_from([0, 0.5, 1]), st.just(0.3)), exists)),
    st.tuples(st.just("created_at"), _tests(instants, instants)),
    st.tuples(st.just("last_access_at"), exists),
)
filters = st.recursive(
    st.lists(some_fields, min_size=1, max_size=2).map(dict),
    lambda parts: st.one_of(
        st.fixed_dictionaries({"or": st.lists(parts, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"and": st.lists(parts, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": parts}),
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(where=filters, query=st.sampled_from(LETTERS), limit=st.sampled_from([1, 3, 10, N]))
def test_a_filtered_search_is_the_brute_force_over_the_rows(
    filled: tuple[MemoryManager, list[Memory]], where: dict[str, Any], query: str, limit: int
) -> None:
    manager, memories = filled
    everything = manager.search_memories(query, namespace="one", limit=N)
    assert len(everything) == sum(memory.namespace == "one" for memory in memories)
    expected = [
        (result["memory"].id, result["score"]) for result in everything if _meets(result["memory"], where)
    ]
    found = manager.search_memories(query, namespace="one", where=where, limit=limit)
    assert [(result["memory"].id, result["score"]) for result in found] == expected[:limit]
    again = filter_of(check_where(where).as_json())
    assert again.as_json() == check_where(where).as_json()


def test_a_filter_is_exact_among_more_than_are_compared_one_by_one(
    filled: tuple[MemoryManager, list[Memory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, memories = filled
    monkeypatch.setattr(relevance, "_COMPARED", 5)
    monkeypatch.setattr(relevance, "_POOL", 5)
    for where in [
        {"source": "Z"},
        {"created_at": {"gte": FIRST + timedelta(hours=58)}},
        {"not": {"source": "Z"}},
    ]:
        wanted = sorted(m.id for m in memories if m.namespace == "one" and _meets(m, where))
        found = manager.search_memories("a", namespace="one", where=where, limit=N)
        assert sorted(result["memory"].id for result in found) == wanted


def _meets(memory: Memory, where: dict[str, Any]) -> bool:
    return all(_meets_one(memory, key, value) for key, value in where.items())


def _meets_one(memory: Memory, key: str, value: Any) -> bool:
    if key in {"and", "or"}:
        met = [_meets(memory, part) for part in value]
        return all(met) if key == "and" else any(met)
    if key == "not":
        return not _meets(memory, value)
    found: Any = memory.metadata if key.startswith("metadata.") else getattr(memory, key)
    for part in key.split(".")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    tests = value if isinstance(value, dict) else {"eq": value}
    return all(_ANSWERS[op](found, operand) for op, operand in tests.items())


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _equal(found: Any, value: Any) -> bool:
    return found is not None and (
        (_kind(found) == _kind(value) or isinstance(found, str) == isinstance(value, str) == True)  # noqa: E712
        and bool(found == value)
    )


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def answer(found: Any, value: Any) -> bool:
        same = isinstance(found, str) and isinstance(value, str)
        numbers = _kind(found) == _kind(value) == "number"
        dates = isinstance(found, datetime) and isinstance(value, datetime)
        return (same or numbers or dates) and compare(found, value)

    return answer


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, list):
        return any(_equal(one, value) for one in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


_ANSWERS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda found, value: not _equal(found, value),
    "in": lambda found, values: any(_equal(found, value) for value in values),
    "gt": _ordered(lambda a, b: a > b),
    "gte": _ordered(lambda a, b: a >= b),
    "lt": _ordered(lambda a, b: a < b),
    "lte": _ordered(lambda a, b: a <= b),
    "exists": lambda found, there: (found is not None) is there,
    "contains": _contains,
}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("x", "where = 'x': must be a mapping"),
        ({}, "where = .*a mapping of at least one"),
        ({"colour": 1}, "where = 'colour': must be any of: memory_type, source"),
        ({"metadata": 1}, "where = 'metadata'"),
        ({"metadata.": 1}, "where = ''"),
        ({"metadata.a..b": 1}, "where = ''"),
        ({'metadata.a"b': 1}, "without quotation marks"),
        ({"metadata.a.b.c.d.e.f.g.h.i": 1}, "a path of at most 8 keys"),
        ({"source": {"like": "x"}}, r"where.source = 'like': must be .*eq, ne, in"),
        ({"memory_type": {"gt": "task"}}, "where.memory_type = 'gt'"),
        ({"memory_type": "gossip"}, "where.memory_type.eq|memory_type = 'gossip'"),
        ({"importance": "high"}, "where.importance.eq = 'high': must be a finite number"),
        ({"importance": float("nan")}, "a finite number"),
        ({"metadata.n": 2**60}, "a whole one in"),
        ({"metadata.n": None}, "text, a number, true or false"),
        ({"metadata.n": {"gt": True}}, "text or a number"),
        ({"metadata.n": {"exists": 1}}, "true or false"),
        ({"metadata.n": {"in": []}}, "a list of at least one value"),
        ({"metadata.n": {"in": "abc"}}, "a list of values"),
        ({"metadata.n": {}}, "at least one operator"),
        ({"created_at": "yesterday"}, "an ISO 8601 date"),
        ({"or": []}, "where.or = .*a list of at least one"),
        ({"or": {"source": "x"}}, "where.or"),
        ({"not": [1]}, "where.not = .*a mapping"),
        ({"metadata.a": "\0"}, "without NUL"),
        ({"and": [{"source": "x"}] * 101}, "at most 100 conditions"),
        ({"source": {"in": ["x"] * 1001}}, "1000 values"),
    ],
)
def test_a_filter_that_is_none_is_refused_and_says_what_is_allowed(where: Any, message: str) -> None:
    with pytest.raises(InvalidMemory, match=message):
        check_where(where)
    deep: Any = {"source": "x"}
    for _ in range(7):
        deep = {"not": deep}
    check_where(deep)
    with pytest.raises(InvalidMemory, match="nested at most 8 deep"):
        check_where({"not": deep})
