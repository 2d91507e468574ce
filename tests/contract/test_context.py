"""A memory's neighbours in its conversation: by date, then by position, and only of its own conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory.database import Database
from memory.errors import InvalidMemory, NotFound
from memory.memory_manager import MemoryManager
from memory.messages import RawMemory
from memory.models import MemoryId, SearchHit
from memory.store.memories import MemoryStore
from tests.fakes import WordEmbedder
from tests.making import caught_up, open_index, raw, request, searcher, store_all


def said(
    content: str, *, position: object, minute: int = 0, source: str = "chat:a", **fields: str
) -> RawMemory:
    return raw(
        content,
        source=source,
        metadata={"position": position},
        created_at=f"2025-01-01T00:{minute:02}:00+00:00",
        **fields,
    )


def around(database: Database, memory_id: int, *, before: int = 2, after: int = 2) -> list[str]:
    found = MemoryStore(database).context(MemoryId(memory_id), before=before, after=after)
    return [memory.content for memory in found]


def test_neighbours_come_in_the_order_of_the_conversation_whatever_order_they_were_stored_in(
    database: Database,
) -> None:
    ids = store_all(
        database,
        said("four", position=3, minute=5),
        said("two", position=1),
        said("five", position=4, minute=5),
        said("one", position=0),
        said("three", position=2),
        said("a later export counts anew", position=0, minute=9),
    )
    assert around(database, ids[4]) == ["one", "two", "three", "four", "five"]
    assert around(database, ids[4], before=0, after=1) == ["three", "four"]
    assert around(database, ids[4], before=1, after=0) == ["two", "three"]
    assert around(database, ids[3]) == ["one", "two", "three"]
    assert around(database, ids[5]) == ["four", "five", "a later export counts anew"]


def test_only_live_memories_of_the_same_namespace_and_source_are_neighbours(database: Database) -> None:
    ids = store_all(
        database,
        said("mine", position=1),
        said("another chat", position=0, source="chat:b"),
        said("another namespace", position=0, namespace="b"),
        said("deleted", position=2),
        said("next", position=3),
        raw("without a position", source="chat:a"),
    )
    MemoryStore(database).delete(MemoryId(ids[3]))
    assert around(database, ids[0]) == ["mine", "next"]


@pytest.mark.parametrize("position", [None, -1, "1", 1.5, True, 2**31, [1]])
def test_a_memory_without_a_whole_number_for_a_position_has_no_neighbours(
    database: Database, position: object
) -> None:
    [alone, _] = store_all(database, said("alone", position=position), said("another", position=1))
    assert around(database, alone) == ["alone"]


def test_there_is_none_around_what_is_not_there(database: Database) -> None:
    [gone] = store_all(database, said("gone", position=0))
    MemoryStore(database).delete(MemoryId(gone))
    for memory_id in (gone, gone + 1):
        with pytest.raises(NotFound, match=f"no live memory with id {memory_id}"):
            around(database, memory_id)


def test_the_library_gives_it_too_and_follows_an_update(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        first, second = (
            manager.add_memory(content, "episodic", source="chat", metadata={"position": position}).id
            for position, content in enumerate(["one", "two"])
        )
        assert [memory.id for memory in manager.get_context(first)] == [first, second]
        manager.update_memory(second, metadata={"position": None})
        assert [memory.id for memory in manager.get_context(first)] == [first]
        for bounds in ({"before": -1}, {"after": 101}):
            with pytest.raises(InvalidMemory, match=r"whole number in 0\.\.100"):
                manager.get_context(first, **bounds)


def test_a_search_shows_what_was_said_around_each_hit(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    ids = store_all(
        database,
        said("which tea", position=0),
        said("green oolong please", position=1),
        said("with sugar", position=2),
        said("no", position=3),
        raw("oolong alone"),
    )
    caught_up(sync)
    look = searcher(sync, database)
    hits = look.search(request("green oolong please", limit=2, context=1), wait_s=0)
    around = [
        ([m.content for m in hit.before], hit.memory.content, [m.content for m in hit.after]) for hit in hits
    ]
    assert around == [(["which tea"], "green oolong please", ["with sugar"]), ([], "oolong alone", [])]
    assert [SearchHit.from_json(hit.as_json()) for hit in hits] == hits
    [plain] = look.search(request("green oolong please", limit=1), wait_s=0)
    assert (plain.before, plain.after) == ((), ())
    MemoryStore(database).delete(MemoryId(ids[2]))
    [hit] = look.search(request("green oolong please", limit=1, context=10), wait_s=0)
    assert [m.content for m in hit.after] == ["no"]


def test_the_library_shows_it_with_each_result(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        for position, content in enumerate(["one", "two", "three"]):
            manager.add_memory(content, "episodic", source="chat", metadata={"position": position})
        [result] = manager.search_memories("two", limit=1, context=5)
        assert [memory.content for memory in result["before"]] == ["one"]
        assert [memory.content for memory in result["after"]] == ["three"]
        [result] = manager.search_memories("two", limit=1)
        assert "before" not in result
        with pytest.raises(InvalidMemory, match=r"context = 11: must be a whole number in 0\.\.10"):
            manager.search_memories("two", context=11)
