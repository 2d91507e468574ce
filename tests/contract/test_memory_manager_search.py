"""Searching with the library: best first, filters that never starve, neighbours that come along."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from memory.database import Database
from memory.errors import InvalidMemory
from memory.memory_manager import MemoryManager
from memory.models import MemoryType
from memory.results import SearchResult
from memory.schema import memories
from tests.fakes import WordEmbedder


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def test_search_memories_returns_memory_score_and_rank_best_first(manager: MemoryManager) -> None:
    exact = manager.add_memory("the red kite", "semantic", "system", {"importance": 0.8})
    near = manager.add_memory("the red kite flew", "episodic")
    manager.add_memory("bread and butter", "semantic")
    results = manager.search_memories("the red kite", mode="vector")
    assert [sorted(r) for r in results] == [["cursor", "memory", "rank", "score"]] * 3
    assert [r["rank"] for r in results] == [1, 2, 3]
    assert [r["memory"] for r in results[:2]] == [exact, near]
    scores = [r["score"] for r in results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert all(type(score) is float for score in scores)


def test_search_memories_takes_its_arguments_by_position(manager: MemoryManager) -> None:
    manager.add_memories([{"content": f"kite {n}", "memory_type": "task"} for n in range(5)])
    assert len(manager.search_memories("kite 3", ["task"], 2, -1.0)) == 2
    assert [r["memory"].content for r in manager.search_memories("kite 3", ["task"], 2, 0.5)] == ["kite 3"]


def test_a_search_returns_five_unless_told_otherwise(manager: MemoryManager) -> None:
    manager.add_memories([{"content": f"kite {n}"} for n in range(8)])
    assert len(manager.search_memories("kite")) == 5
    assert len(manager.search_memories("kite", limit=1000)) == 8


def test_an_empty_memory_finds_nothing(manager: MemoryManager) -> None:
    assert manager.search_memories("anything", expand=3) == []


def test_a_search_can_be_bounded_to_types_given_in_any_form(manager: MemoryManager) -> None:
    for kind in MemoryType:
        manager.add_memory("a kite", kind)

    def types(given: Any) -> set[MemoryType]:
        return {r["memory"].memory_type for r in manager.search_memories("a kite", given, limit=10)}

    assert types(None) == set(MemoryType)
    assert types([MemoryType.TASK]) == types("TASK") == types(MemoryType.TASK) == {MemoryType.TASK}
    assert types(["Semantic", MemoryType.RESPONSE]) == {MemoryType.SEMANTIC, MemoryType.RESPONSE}
    assert types(("task", "task")) == {MemoryType.TASK}


def test_a_search_sees_one_namespace(manager: MemoryManager) -> None:
    manager.add_memory("a kite", "task", namespace="ines")
    assert manager.search_memories("a kite") == []
    [result] = manager.search_memories("a kite", namespace="ines")
    assert result["memory"].namespace == "ines"


def test_filters_never_starve_the_result(manager: MemoryManager) -> None:
    manager.add_memories([{"content": "the red kite", "memory_type": "episodic"} for _ in range(300)])
    manager.add_memories([{"content": "the red kite", "namespace": "other"} for _ in range(100)])
    wanted = manager.add_memories(
        [{"content": f"bread number {n}", "memory_type": "semantic"} for n in range(7)]
    )
    results = manager.search_memories("the red kite", ["semantic"], limit=7)
    assert {r["memory"].id for r in results} == {m.id for m in wanted}


def test_rows_that_are_gone_are_made_up_for(manager: MemoryManager, database: Database) -> None:
    gone = manager.add_memories([{"content": "the red kite"} for _ in range(60)])
    manager.add_memories([{"content": f"bread {n}"} for n in range(5)])
    for memory in gone:
        manager.delete_memory(memory.id)
    assert len(manager.search_memories("the red kite", limit=5)) == 5


def test_the_memories_found_stay_readable_after_close(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memory("a kite", "task", metadata={"tags": ["x"]})
        manager.add_memory_association(1, manager.add_memory("bread", "task").id, "next")
        results = manager.search_memories("a kite", limit=1, expand=1)
        related = manager.get_related_memories(1)
    assert [r["memory"].content for r in results] == ["a kite", "bread"]
    assert results[0]["memory"].metadata == {"tags": ["x"]}
    assert related[0]["memory"].memory_type is MemoryType.TASK


def test_a_search_sets_last_accessed_at_most_once_an_hour(manager: MemoryManager, database: Database) -> None:
    found = manager.add_memory("a kite", "task")
    other = manager.add_memory("bread and butter", "task")
    manager.search_memories("a kite", limit=1)
    first = _last_accessed(manager, found.id)
    assert first is not None
    assert datetime.now(UTC) - first < timedelta(minutes=1)
    assert _last_accessed(manager, other.id) is None
    manager.search_memories("a kite", limit=1)
    assert _last_accessed(manager, found.id) == first
    _accessed_before(database, timedelta(minutes=59))
    before = _last_accessed(manager, found.id)
    manager.search_memories("a kite", limit=1)
    assert _last_accessed(manager, found.id) == before
    _accessed_before(database, timedelta(minutes=61))
    manager.search_memories("a kite", limit=1)
    renewed = _last_accessed(manager, found.id)
    assert renewed is not None
    assert renewed >= first
    assert manager.get_memory(found.id).version == 1  # being found is no change


def test_what_comes_along_with_a_hit_is_marked_and_stands_behind_it(manager: MemoryManager) -> None:
    hit, weak, strong, _unrelated = _four(manager)
    manager.add_memory_association(hit, weak, "mentions", 0.3, {"line": 4})
    manager.add_memory_association(strong, hit, "explains", 0.9)
    plain = manager.search_memories("a red kite", limit=1)
    results = manager.search_memories("a red kite", limit=1, expand=5)
    assert [r["memory"].id for r in plain] == [hit]
    assert [r["memory"].id for r in results] == [hit, strong, weak]
    assert [r["rank"] for r in results] == [1, 2, 3]
    assert "expanded_from" not in results[0]
    assert "relationship" not in results[0]
    assert [r["expanded_from"] for r in results[1:]] == [hit, hit]
    assert results[1]["relationship"]["direction"] == "incoming"
    assert results[2]["relationship"] == {
        "type": "mentions",
        "strength": 0.3,
        "direction": "outgoing",
        "metadata": {"line": 4},
        "depth": 1,
        "path": [hit, weak],
    }
    scores = {r["memory"].id: r["score"] for r in manager.search_memories("a red kite", limit=10)}
    assert results[1]["score"] == pytest.approx(scores[strong])  # its own nearness, not the hit's


def test_what_comes_along_never_repeats_a_hit_or_itself(manager: MemoryManager) -> None:
    first, second, other = (
        manager.add_memory(content, "episodic").id for content in ("a red kite", "a red kite flew", "bread")
    )
    manager.add_memory_association(first, second, "next")
    manager.add_memory_association(second, first, "previous")
    manager.add_memory_association(first, other, "mentions", 0.2)
    manager.add_memory_association(second, other, "explains", 0.7)
    results = manager.search_memories("a red kite", limit=2, expand=10)
    assert _ids(results) == [first, second, other]
    assert results[2]["expanded_from"] == second  # by its strongest association
    assert results[2]["relationship"]["type"] == "explains"


def test_the_type_filter_does_not_hold_back_neighbours(manager: MemoryManager) -> None:
    hit = manager.add_memory("a red kite", "episodic").id
    neighbour = manager.add_memory("a promise", "task").id
    manager.add_memory_association(hit, neighbour, "led_to")
    results = manager.search_memories("a red kite", ["episodic"], expand=1)
    assert [r["memory"].id for r in results] == [hit, neighbour]


def test_expand_bounds_how_many_come_along_and_the_strongest_do(manager: MemoryManager) -> None:
    hit = manager.add_memory("a red kite", "episodic").id
    for n in range(10):
        neighbour = manager.add_memory(f"bread {n}", "task").id
        manager.add_memory_association(hit, neighbour, "mentions", n / 10)
    results = manager.search_memories("a red kite", limit=1, expand=3)
    assert [r["memory"].content for r in results[1:]] == ["bread 9", "bread 8", "bread 7"]
    assert len(manager.search_memories("a red kite", ["episodic"], limit=5, expand=1000)) == 11


def test_what_came_along_counts_as_accessed_too(manager: MemoryManager) -> None:
    hit, neighbour, *_ = _four(manager)
    manager.add_memory_association(hit, neighbour, "next")
    manager.search_memories("a red kite", limit=1, expand=1)
    assert _last_accessed(manager, neighbour) is not None


def test_a_bad_argument_is_refused_by_name(manager: MemoryManager) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"query": " "}, "query = ' ': must be text that is not blank"),
        ({"query": None}, "query = None: must be text"),
        ({"memory_types": ["dream"]}, "memory_type = 'dream': must be one of episodic, "),
        ({"memory_types": []}, "memory_types = []: must be a list of at least one type, or nothing"),
        ({"limit": 0}, "limit = 0: must be a whole number in 1..1000"),
        ({"limit": 2.5}, "limit = 2.5: must be a whole number in 1..1000"),
        ({"min_score": 1.1}, "min_score = 1.1: must be a number in -1..1"),
        ({"expand": -1}, "expand = -1: must be a whole number in 0..1000"),
        ({"namespace": ""}, "namespace = ''"),
    ]
    for wrong, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.search_memories(**{"query": "a kite", **wrong})
        assert message in str(refusal.value)


def test_a_search_sees_what_another_manager_has_just_committed(database_url: str, home: Path) -> None:
    index = home / "index"
    with (
        MemoryManager(database_url, WordEmbedder(), index) as owner,
        MemoryManager(database_url, WordEmbedder(), index) as follower,
    ):
        assert (owner.owns_index, follower.owns_index) == (True, False)
        for writer, reader in ((owner, follower), (follower, owner)):
            memory = writer.add_memory("a kite", "task")
            assert _ids(reader.search_memories("a kite", limit=1)) == [memory.id]
            writer.update_memory(memory.id, content="bread")
            assert _ids(reader.search_memories("a kite", min_score=0.9, mode="vector")) == []
            writer.delete_memory(memory.id)
            assert reader.search_memories("bread") == []
            assert reader.verify().equal


def test_managers_with_an_index_folder_each_share_a_database(database_url: str, home: Path) -> None:
    with (
        MemoryManager(database_url, WordEmbedder(), home / "one") as first,
        MemoryManager(database_url, WordEmbedder(), home / "two") as second,
    ):
        mine = first.add_memory("a kite", "task")
        yours = second.add_memory("bread", "task")
        assert _ids(first.search_memories("bread", limit=1)) == [yours.id]
        assert _ids(second.search_memories("a kite", limit=1)) == [mine.id]
        first.save_index()
        second.save_index()
        assert first.verify().equal
        assert second.verify().equal


def _four(manager: MemoryManager) -> list[int]:
    """Four memories of which the first is the nearest to "a red kite"."""
    contents = ("a red kite", "bread and butter", "seven old clocks", "nothing else matters")
    return [m.id for m in manager.add_memories([{"content": content} for content in contents])]


def _ids(results: list[SearchResult]) -> list[int]:
    return [result["memory"].id for result in results]


def _last_accessed(manager: MemoryManager, memory_id: int) -> datetime | None:
    memory = manager.get_memory(memory_id)
    assert memory is not None
    return memory.last_accessed


def _accessed_before(database: Database, age: timedelta) -> None:
    with database.write() as connection:
        connection.execute(
            update(memories)
            .where(memories.c.last_access_at.is_not(None))
            .values(last_access_at=datetime.now(UTC) - age)
        )
