"""Forgetting with the library: only what is both old and unimportant, and never by accident."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memory.database import Database
from memory.errors import CleanupBraked, InvalidMemory
from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous

OLD = datetime.now(UTC) - timedelta(days=40)
NEW = datetime.now(UTC) - timedelta(days=20)


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def test_cleanup_removes_what_is_older_and_less_important_than_told(
    manager: MemoryManager, database: Database
) -> None:
    for age, created_at in (("old", OLD), ("new", NEW)):
        for importance in (0.0, 0.29, 0.3, 0.9):
            content = f"{age} {importance}"
            manager.add_memory(content, "task", metadata={"importance": importance}, created_at=created_at)
        manager.add_memory(f"{age} neutral", "task", created_at=created_at)
    stats = manager.cleanup_old_memories(max_age_days=30, min_importance=0.3, dry_run=False)
    assert stats == {"total_found": 2, "deleted": 2, "skipped": 0}
    assert "old 0.0" not in _left(manager)
    assert "old 0.29" not in _left(manager)
    assert len(_left(manager)) == 8
    assert manager.verify().equal
    assert_events_contiguous(database)


def test_cleanup_only_counts_unless_told_otherwise(manager: MemoryManager) -> None:
    _add_old(manager, 3)
    assert manager.cleanup_old_memories() == {"total_found": 3, "deleted": 0, "skipped": 3}
    assert manager.cleanup_old_memories(30, 0.3, None, True) == {
        "total_found": 3,
        "deleted": 0,
        "skipped": 3,
    }
    assert len(_left(manager)) == 3


def test_a_memory_without_an_importance_counts_as_a_half(manager: MemoryManager) -> None:
    manager.add_memory("neutral", "task", created_at=OLD)
    assert manager.cleanup_old_memories(min_importance=0.5)["total_found"] == 0
    assert manager.cleanup_old_memories(min_importance=0.51)["total_found"] == 1


def test_cleanup_spares_what_a_search_found_lately(manager: MemoryManager) -> None:
    _add_old(manager, 2)
    manager.search_memories("old 1", limit=1)
    assert manager.cleanup_old_memories(dry_run=False)["deleted"] == 1
    assert _left(manager) == {"old 1"}


def test_cleanup_can_be_bounded_to_types_and_a_namespace(manager: MemoryManager) -> None:
    for kind in ("task", "episodic", "semantic"):
        for namespace in ("default", "ines"):
            manager.add_memory(kind, kind, metadata={"importance": 0}, namespace=namespace, created_at=OLD)
    assert manager.cleanup_old_memories(memory_types=["TASK", "episodic"])["total_found"] == 4
    assert manager.cleanup_old_memories(memory_types="task", namespace="ines")["total_found"] == 1
    assert manager.cleanup_old_memories(namespace="nobody")["total_found"] == 0
    assert manager.cleanup_old_memories()["total_found"] == 6
    manager.cleanup_old_memories(memory_types="task", namespace="ines", dry_run=False)
    assert _left(manager) == {"task", "episodic", "semantic"}
    assert _left(manager, "ines") == {"episodic", "semantic"}


def test_cleanup_takes_associations_along(manager: MemoryManager) -> None:
    _add_old(manager, 1)
    kept = manager.add_memory("kept", "task").id
    manager.add_memory_association(1, kept, "next")
    assert manager.cleanup_old_memories(dry_run=False)["deleted"] == 1
    assert manager.get_related_memories(kept) == []


def test_the_brake_stops_a_cleanup_that_would_remove_too_much_unless_forced(
    database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_CLEANUP_BRAKE_COUNT", "10")
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        _add_old(manager, 12)
        for dry_run in (True, False):
            with pytest.raises(CleanupBraked, match=r"12 of the 12 .* nothing was removed"):
                manager.cleanup_old_memories(dry_run=dry_run)
        assert manager.verify().n_memories == 12
        assert manager.cleanup_old_memories(dry_run=False, force=True)["deleted"] == 12
        assert _left(manager) == set()


def test_a_bad_argument_is_refused_by_name_and_nothing_is_removed(manager: MemoryManager) -> None:
    _add_old(manager, 1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"max_age_days": -1}, "max_age_days = -1: must be a number in 0..36500"),
        ({"max_age_days": "30"}, "max_age_days = '30': must be a number in 0..36500"),
        ({"min_importance": 1.5}, "min_importance = 1.5: must be a number in 0..1"),
        ({"memory_types": ["dream"]}, "memory_type = 'dream'"),
        ({"namespace": " "}, "namespace = ' '"),
    ]
    for wrong, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.cleanup_old_memories(**{"dry_run": False, **wrong})
        assert message in str(refusal.value)
    assert _left(manager) == {"old 0"}


def _add_old(manager: MemoryManager, n: int) -> None:
    manager.add_memories(
        {"content": f"old {i}", "metadata": {"importance": 0.1}, "created_at": OLD} for i in range(n)
    )


def _left(manager: MemoryManager, namespace: str = "default") -> set[str]:
    found = manager.search_memories("anything at all", limit=1000, namespace=namespace)
    return {result["memory"].content for result in found}
