"""The library over restarts: what closing saves, what the next open knows, what a closed manager says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.errors import ManagerClosed, MemorySystemError
from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder

CALLS: dict[str, Callable[[MemoryManager], Any]] = {
    "add_memory": lambda m: m.add_memory("hello", "task"),
    "add_memories": lambda m: m.add_memories([{"content": "hello"}]),
    "get_memory": lambda m: m.get_memory(1),
    "get_context": lambda m: m.get_context(1),
    "update_memory": lambda m: m.update_memory(1, "hello"),
    "delete_memory": lambda m: m.delete_memory(1),
    "search_memories": lambda m: m.search_memories("hello"),
    "add_memory_association": lambda m: m.add_memory_association(1, 2, "next"),
    "delete_memory_association": lambda m: m.delete_memory_association(1, 2),
    "get_related_memories": lambda m: m.get_related_memories(1),
    "cleanup_old_memories": lambda m: m.cleanup_old_memories(),
    "save_index": lambda m: m.save_index(),
    "owns_index": lambda m: m.owns_index,
    "reembed": lambda m: m.reembed(WordEmbedder()),
    "verify": lambda m: m.verify(),
}


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def test_closing_saves_the_index_and_the_next_open_knows_everything(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        memory = manager.add_memory("hello", "task")
    saved = (home / "index" / "CURRENT").read_text()
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        assert manager.get_memory(memory.id) == memory
        assert [r["memory"] for r in manager.search_memories("hello")] == [memory]
    assert (home / "index" / "CURRENT").read_text() == saved  # nothing changed, so nothing was saved again


def test_save_index_saves_what_changed(manager: MemoryManager, home: Path) -> None:
    current = home / "index" / "CURRENT"
    manager.save_index()
    assert not current.exists()  # there is nothing to save
    manager.add_memory("hello", "task")
    manager.save_index()
    saved = current.read_text()
    manager.save_index()
    assert current.read_text() == saved
    manager.add_memory("hello again", "task")
    manager.save_index()
    assert current.read_text() != saved


def test_the_index_is_saved_by_itself_after_enough_changes(
    database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SNAPSHOT_EVERY_EVENTS", "3")
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memories([{"content": "one"}, {"content": "two"}])
        assert not (home / "index" / "CURRENT").exists()
        manager.add_memory("three", "task")
        assert (home / "index" / "CURRENT").exists()


def test_an_index_that_was_deleted_is_made_again_from_the_database(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "first") as manager:
        manager.add_memories([{"content": f"note {n}"} for n in range(20)])
    with MemoryManager(database_url, WordEmbedder(), home / "second") as manager:
        comparison = manager.verify()
        assert (comparison.n_vectors, comparison.equal) == (20, True)
        assert manager.search_memories("note 7")[0]["memory"].content == "note 7"


def test_leaving_the_block_closes_and_closing_twice_is_harmless(database_url: str, home: Path) -> None:
    def fail() -> None:
        with manager:
            manager.add_memory("hello", "task")
            raise ZeroDivisionError

    manager = MemoryManager(database_url, WordEmbedder(), home / "i")
    with pytest.raises(ZeroDivisionError):
        fail()
    manager.close()
    manager.close()
    with MemoryManager(database_url, WordEmbedder(), home / "i") as another:
        assert another.owns_index  # the one before let go of it
        assert another.search_memories("hello")[0]["memory"].content == "hello"


def test_every_call_after_close_says_that_it_is_closed(database_url: str, home: Path) -> None:
    public = {name for name in vars(MemoryManager) if not name.startswith("_")}
    assert set(CALLS) == public - {"close"}
    manager = MemoryManager(database_url, WordEmbedder(), home / "index")
    manager.close()
    for name, call in CALLS.items():
        with pytest.raises(ManagerClosed, match="was closed: open another one"):
            call(manager)
        assert issubclass(ManagerClosed, MemorySystemError), name


def test_closing_is_quiet_after_another_process_changed_the_model(database_url: str, home: Path) -> None:
    class Another(WordEmbedder):
        fingerprint = "another@1/32d/float32/unit"

    with (
        MemoryManager(database_url, WordEmbedder(), home / "index") as owner,
        MemoryManager(database_url, WordEmbedder(), home / "index") as follower,
    ):
        owner.add_memory("hello", "task")
        assert follower.reembed(Another()) == 1
    with MemoryManager(database_url, Another(), home / "index") as manager:
        assert manager.owns_index
        assert manager.verify().equal
