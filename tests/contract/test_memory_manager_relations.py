"""Relating memories with the library: directed, typed, weighted, walked over several steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from memory.database import Database
from memory.errors import InvalidMemory, NotFound
from memory.memory_manager import MemoryManager
from memory.models import MemoryAssociation
from memory.schema import associations
from tests.fakes import WordEmbedder


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    """A manager that holds memories 1 to 6: one word each, "one" to "six"."""
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        words = ("one", "two", "three", "four", "five", "six")
        added = manager.add_memories({"content": w, "uid": str(n)} for n, w in enumerate(words))
        assert [m.id for m in added] == [1, 2, 3, 4, 5, 6]
        yield manager


def test_add_memory_association_returns_what_it_linked(manager: MemoryManager) -> None:
    association = manager.add_memory_association(1, 2, "causes", 0.5, {"seen": "once"})
    assert isinstance(association, MemoryAssociation)
    assert (association.memory_id, association.related_memory_id) == (1, 2)
    assert (association.relationship_type, association.strength) == ("causes", 0.5)
    assert association.metadata == {"seen": "once"}
    assert association.created_at.utcoffset() is not None
    assert manager.add_memory_association(1, 3, "causes").strength == 1.0


def test_an_association_is_directed(manager: MemoryManager) -> None:
    manager.add_memory_association(1, 2, "causes")
    [outgoing], [incoming] = manager.get_related_memories(1), manager.get_related_memories(2)
    assert (outgoing["memory"].id, outgoing["relationship"]["direction"]) == (2, "outgoing")
    assert (incoming["memory"].id, incoming["relationship"]["direction"]) == (1, "incoming")


def test_an_equal_association_is_updated(manager: MemoryManager, database: Database) -> None:
    first = manager.add_memory_association(1, 2, "causes", 0.2, {"seen": "once"})
    again = manager.add_memory_association(1, 2, "causes", 0.8)
    assert (again.id, again.created_at) == (first.id, first.created_at)
    assert (again.strength, again.metadata) == (0.8, {})
    manager.add_memory_association(2, 1, "causes")  # the other way
    manager.add_memory_association(1, 2, "follows")  # of another type
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(associations)) == 3


def test_add_memory_association_refuses_what_is_wrong_by_name(manager: MemoryManager) -> None:
    stranger = manager.add_memory("seven", "task", namespace="other").id
    manager.delete_memory(6)
    refused: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((1, 1, "causes"), InvalidMemory, "related_memory_id = 1: must be another memory than memory_id"),
        ((1, 99, "causes"), NotFound, "no live memory with id 99"),
        ((99, 1, "causes"), NotFound, "no live memory with id 99"),
        ((1, 6, "causes"), NotFound, "no live memory with id 6"),
        ((1, stranger, "causes"), InvalidMemory, "must be a memory of the same namespace, 'default'"),
        ((1, 2, "causes", 1.01), InvalidMemory, "strength = 1.01: must be a number in 0..1"),
        ((1, 2, "causes", -0.1), InvalidMemory, "strength = -0.1: must be a number in 0..1"),
        ((1, 2, "causes", float("nan")), InvalidMemory, "strength = nan: must be a number in 0..1"),
        ((1, 2, "causes", True), InvalidMemory, "strength = True: must be a number in 0..1"),
        ((1, 2, " "), InvalidMemory, "relationship_type = ' '"),
        ((1, "2", "causes"), InvalidMemory, "related_memory_id = '2': must be a whole number"),
        ((1, 2, "causes", 1.0, "text"), InvalidMemory, "metadata = 'text': must be a JSON object"),
    ]
    for arguments, error, message in refused:
        with pytest.raises(error) as refusal:
            manager.add_memory_association(*arguments)
        assert message in str(refusal.value)
    assert manager.get_related_memories(1) == []


def test_get_related_memories_lists_both_directions_the_strongest_first(manager: MemoryManager) -> None:
    manager.add_memory_association(1, 2, "causes", 0.4)
    manager.add_memory_association(3, 1, "explains", 0.9, {"line": 4})
    related = manager.get_related_memories(1)
    assert [sorted(r) for r in related] == [["memory", "relationship"]] * 2
    assert [r["memory"].content for r in related] == ["three", "two"]
    assert related[0]["relationship"] == {
        "type": "explains",
        "strength": 0.9,
        "direction": "incoming",
        "metadata": {"line": 4},
        "depth": 1,
        "path": [1, 3],
    }


def test_get_related_memories_lists_every_association_of_a_pair(manager: MemoryManager) -> None:
    manager.add_memory_association(1, 2, "causes", 0.4)
    manager.add_memory_association(1, 2, "mentions", 0.6)
    manager.add_memory_association(2, 1, "causes", 0.5)
    shown = [
        (r["relationship"]["type"], r["relationship"]["direction"]) for r in manager.get_related_memories(1)
    ]
    assert shown == [("mentions", "outgoing"), ("causes", "incoming"), ("causes", "outgoing")]


def test_get_related_memories_can_be_bounded_by_type_strength_and_direction(manager: MemoryManager) -> None:
    manager.add_memory_association(1, 2, "causes", 0.4)
    manager.add_memory_association(3, 1, "causes", 0.6)
    manager.add_memory_association(1, 4, "mentions", 0.8)
    assert _reached(manager, 1, "causes") == {2: 0.4, 3: 0.6}
    assert _reached(manager, 1, None, 0.6) == {3: 0.6, 4: 0.8}
    assert _reached(manager, 1, "causes", 0.6) == {3: 0.6}
    assert _reached(manager, 1, direction="outgoing") == {2: 0.4, 4: 0.8}
    assert _reached(manager, 1, direction="incoming") == {3: 0.6}
    assert _reached(manager, 1, direction="both") == {2: 0.4, 3: 0.6, 4: 0.8}


def test_a_walk_multiplies_the_strengths_of_its_steps(manager: MemoryManager) -> None:
    for at, strength in ((1, 0.9), (2, 0.8), (3, 0.5)):
        manager.add_memory_association(at, at + 1, "next", strength)
    assert _reached(manager, 1) == {2: 0.9}
    assert _reached(manager, 1, depth=2) == pytest.approx({2: 0.9, 3: 0.72})
    assert _reached(manager, 1, depth=10) == pytest.approx({2: 0.9, 3: 0.72, 4: 0.36})
    assert _reached(manager, 1, min_strength=0.5, depth=3) == pytest.approx({2: 0.9, 3: 0.72})
    assert _reached(manager, 4, direction="outgoing", depth=3) == {}
    assert _reached(manager, 4, direction="incoming", depth=3) == pytest.approx({3: 0.5, 2: 0.4, 1: 0.36})
    last = manager.get_related_memories(1, depth=3)[-1]["relationship"]
    assert (last["depth"], last["path"], last["type"]) == (3, [1, 2, 3, 4], "next")


def test_of_several_walks_the_strongest_counts_even_if_it_is_the_longer(manager: MemoryManager) -> None:
    manager.add_memory_association(1, 2, "next", 0.2)
    manager.add_memory_association(2, 5, "next", 0.9)  # 1-2-5: 0.18
    manager.add_memory_association(1, 3, "next", 0.9)
    manager.add_memory_association(3, 4, "next", 0.9)
    manager.add_memory_association(4, 5, "next", 0.9)  # 1-3-4-5: 0.729
    manager.add_memory_association(5, 6, "next", 1.0)
    assert _reached(manager, 1, depth=2, direction="outgoing")[5] == pytest.approx(0.18)
    assert _reached(manager, 1, depth=3, direction="outgoing")[5] == pytest.approx(0.729)
    reached = {r["memory"].id: r["relationship"] for r in manager.get_related_memories(1, depth=4)}
    assert reached[6]["path"] == [1, 3, 4, 5, 6]


def test_a_walk_in_a_circle_ends_and_never_comes_home(manager: MemoryManager) -> None:
    for at in range(1, 6):
        manager.add_memory_association(at, at % 5 + 1, "next")
    assert _reached(manager, 1, depth=10) == dict.fromkeys((2, 3, 4, 5), 1.0)


def test_get_related_memories_refuses_what_is_wrong_by_name(manager: MemoryManager) -> None:
    with pytest.raises(NotFound, match="no live memory with id 99"):
        manager.get_related_memories(99)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"direction": "up"}, "direction = 'up': must be both, outgoing or incoming"),
        ({"depth": 11}, "depth = 11: must be a whole number in 1..10"),
        ({"depth": 0}, "depth = 0: must be a whole number in 1..10"),
        ({"min_strength": 2}, "min_strength = 2: must be a number in 0..1"),
        ({"relationship_type": ""}, "relationship_type = ''"),
    ]
    for wrong, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.get_related_memories(1, **wrong)
        assert message in str(refusal.value)


def test_deleting_a_memory_removes_its_associations_both_ways(
    manager: MemoryManager, database: Database
) -> None:
    manager.add_memory_association(1, 2, "next")
    manager.add_memory_association(3, 1, "next")
    manager.add_memory_association(2, 3, "next")
    manager.delete_memory(1)
    assert _reached(manager, 2, depth=10) == {3: 1.0}
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(associations)) == 1


def test_delete_memory_association_removes_one_type_or_all_of_one_direction(manager: MemoryManager) -> None:
    for kind in ("causes", "mentions", "explains"):
        manager.add_memory_association(1, 2, kind)
    manager.add_memory_association(2, 1, "causes")
    assert manager.delete_memory_association(1, 2, "causes") == 1
    assert manager.delete_memory_association(1, 2, "causes") == 0
    assert manager.delete_memory_association(1, 2) == 2
    [left] = manager.get_related_memories(1)
    assert (left["relationship"]["type"], left["relationship"]["direction"]) == ("causes", "incoming")
    assert manager.get_memory(1) is not None


def test_associations_outlive_an_update_and_a_restart(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        first, second = manager.add_memory("one", "task").id, manager.add_memory("two", "task").id
        manager.add_memory_association(first, second, "next", 0.7)
        manager.update_memory(second, content="another two", memory_type="semantic")
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        assert _reached(manager, first) == {second: 0.7}


def _reached(manager: MemoryManager, memory_id: int, *arguments: Any, **named: Any) -> dict[int, float]:
    related = manager.get_related_memories(memory_id, *arguments, **named)
    assert [r["relationship"]["path"][-1] for r in related] == [r["memory"].id for r in related]
    return {r["memory"].id: r["relationship"]["strength"] for r in related}
