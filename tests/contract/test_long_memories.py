"""A memory that is longer than its model reads is found by any part of it, and comes once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from memory.database import Database
from memory.index_building import index_of_rows
from memory.index_sync import IndexSync
from memory.memory_manager import MemoryManager
from memory.reembedding import reembed
from memory.schema import memories
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from tests.fakes import ShortSightedEmbedder, TwinEmbedder
from tests.invariants import assert_index_equals_database
from tests.making import caught_up, open_index, raw, request, searcher, store_all
from tests.waiting import wait_until

SHORT = ShortSightedEmbedder()
LONG = "tea with milk please and then a boat across the quiet harbour at noon"


def found(sync: IndexSync, database: Database, query: str, *, limit: int = 5) -> list[tuple[str, float]]:
    hits = searcher(sync, database).search(request(query, limit=limit), wait_s=0)
    return [(hit.memory.content, round(hit.score, 5)) for hit in hits]


@pytest.fixture
def sync(database: Database, home: Path) -> Iterator[IndexSync]:
    opened = open_index(database, home, exact_up_to=200)
    yield opened
    opened.close()


def test_a_long_memory_is_found_by_each_of_its_windows_and_returned_once(
    database: Database, sync: IndexSync
) -> None:
    store_all(database, raw(LONG), raw("coffee"), raw("snow"), embedder=SHORT)
    caught_up(sync)
    assert len(SHORT.windows(LONG)) == 5
    for window in SHORT.windows(LONG):
        hits = found(sync, database, window)
        assert hits[0] == (LONG, 1.0)
        assert len(hits) == 3
    assert sync.replica.content.windows.owners().tolist() == [1]
    assert_index_equals_database(sync)


def test_a_deleted_long_memory_leaves_no_window_behind(database: Database, sync: IndexSync) -> None:
    ids = store_all(database, raw(LONG), raw(f"{LONG} {LONG}"), raw("coffee"), embedder=SHORT)
    caught_up(sync)
    MemoryStore(database).delete(ids[0])
    assert [content for content, _ in found(sync, database, "quiet harbour at")] == [
        f"{LONG} {LONG}",
        "coffee",
    ]
    MemoryStore(database).delete(ids[1])
    caught_up(sync)
    assert len(sync.replica.content.windows) == 0
    assert_index_equals_database(sync)


def test_a_snapshot_keeps_every_window_and_a_rebuild_finds_the_same(
    database: Database, home: Path, sync: IndexSync
) -> None:
    store_all(database, *(raw(f"{LONG} number {n}") for n in range(20)), raw("coffee"), embedder=SHORT)
    caught_up(sync).save_snapshot()
    store_all(database, raw(f"{LONG} later"), embedder=SHORT)
    before = found(caught_up(sync), database, "at noon number 7", limit=30)
    again = open_index(database, home)
    assert again.replica.applied_seq == 21
    assert found(caught_up(again), database, "at noon number 7", limit=30) == before
    again.rebuild("to compare")
    assert found(again, database, "at noon number 7", limit=30) == before
    assert before[0] == (f"{LONG} number 7", 1.0)
    assert_index_equals_database(again)


def test_windows_outgrow_their_form_by_themselves(database: Database, sync: IndexSync) -> None:
    store_all(
        database, *(raw(f"{LONG} number {n} of many {n} boats {n} there") for n in range(60)), embedder=SHORT
    )
    caught_up(sync)
    content = sync.replica.content
    assert len(content.index) < 200 < len(content.windows)
    wait_until(sync.grow, timeout_s=60, why="the index has grown")
    content = sync.replica.content
    assert (content.index.slack, content.windows.slack > 0) == (0, True)
    hits = found(sync, database, "7 of many 7", limit=60)
    assert hits[0] == (f"{LONG} number 7 of many 7 boats 7 there", 1.0), "the score is a cosine all the same"
    assert len(hits) == len(dict(hits)) == 60
    store_all(database, raw(f"{LONG} and one more after that", uid="new"), embedder=SHORT)
    assert found(caught_up(sync), database, "one more after that")[0][0] == f"{LONG} and one more after that"
    assert_index_equals_database(sync)


def test_where_most_memories_are_long_both_forms_are_made_of_a_sample(
    database: Database, sync: IndexSync
) -> None:
    store_all(database, *(raw(f"{LONG} number {n}") for n in range(250)), embedder=SHORT)
    made = index_of_rows(database, sync.identity, use_gpu=False, exact_up_to=200)
    assert made.index.slack > 0
    assert made.windows.slack > 0
    assert len(made.windows) == 250 * 4


def test_a_few_memories_may_have_very_many_windows(database: Database, sync: IndexSync) -> None:
    very_long = [f"{' '.join(f'word{n}-{i}' for i in range(300))} end {n}" for n in range(5)]
    store_all(database, *(raw(text) for text in very_long), embedder=SHORT)
    made = index_of_rows(database, sync.identity, use_gpu=False, exact_up_to=200)
    assert (len(made.index), len(made.windows)) == (5, sum(len(SHORT.windows(t)) - 1 for t in very_long))
    assert (made.index.slack, made.windows.slack > 0) == (0, True)
    caught_up(sync)
    wait_until(sync.grow, timeout_s=60, why="the index has grown")
    for n in (0, 4):
        [(content, score), *_] = found(sync, database, " ".join(f"word{n}-{i}" for i in range(150, 154)))
        assert (content, score) == (very_long[n], 1.0)
    assert_index_equals_database(sync)


def test_a_damaged_window_is_found_by_a_comparison_and_harms_no_other(
    database: Database, sync: IndexSync
) -> None:
    ids = store_all(database, raw(LONG), raw(f"{LONG} {LONG}"), raw(f"other {LONG}"), embedder=SHORT)
    caught_up(sync)
    with database.write() as connection:
        for memory_id, spoil in ((ids[0], lambda e: e[:-128]), (ids[1], lambda e: e[:-4] + b"\xff" * 4)):
            row = select(memories.c.embedding).where(memories.c.id == memory_id)
            spoilt = spoil(connection.scalar(row))
            connection.execute(update(memories).where(memories.c.id == memory_id).values(embedding=spoilt))
    comparison = sync.compare()
    assert comparison.n_different == 2, "one has lost a window, one has a damaged one"
    sync.rebuild("to see that it can be")
    assert sync.compare().n_missing == 1
    assert len(found(sync, database, "quiet harbour")) == 2


def test_another_model_gives_other_windows(database: Database, home: Path, sync: IndexSync) -> None:
    class ShortSightedTwin(ShortSightedEmbedder, TwinEmbedder):
        n_words = 7

    twin = ShortSightedTwin()
    twin.fingerprint, twin._salt = TwinEmbedder.fingerprint, TwinEmbedder._salt
    store_all(database, raw(LONG), raw("coffee"), embedder=SHORT)
    caught_up(sync)
    reembed(database, twin, on_progress=lambda _done, _left: None)
    identity = EventLog(database).identity()
    assert identity is not None
    content = index_of_rows(database, identity, use_gpu=False)
    assert len(content.windows) == len(twin.windows(LONG)) - 1 == 2


def test_the_library_reads_long_memories_whole_and_again_when_they_change(
    database_url: str, home: Path
) -> None:
    with MemoryManager(database_url, SHORT, home / "index") as manager:
        memory = manager.add_memory(LONG, "task")
        manager.add_memory("coffee", "task")
        assert [
            r["score"] for r in manager.search_memories("the quiet harbour at", limit=1, mode="vector")
        ] == pytest.approx([1])
        manager.update_memory(memory.id, "tea with milk")
        assert [
            r["memory"].content
            for r in manager.search_memories("the quiet harbour at", min_score=0.6, mode="vector")
        ] == []
        manager.update_memory(memory.id, f"tea {LONG}")
        assert manager.search_memories("the quiet harbour at", limit=1)[0]["memory"].id == memory.id
        assert manager.verify().equal
    with MemoryManager(database_url, SHORT, home / "index") as manager:
        assert manager.search_memories("across the quiet", limit=1)[0]["memory"].id == memory.id


def test_a_model_that_knows_no_windows_is_used_as_it_is(database_url: str, home: Path) -> None:
    class Wrapped:
        """Only what is asked of a model."""

        fingerprint = ShortSightedEmbedder.fingerprint
        embedding_dim = ShortSightedEmbedder.embedding_dim
        encode = SHORT.encode

    with MemoryManager(database_url, Wrapped(), home / "index") as manager:
        manager.add_memory(LONG, "task")
        assert manager.search_memories("tea with milk please", limit=1, mode="vector")[0][
            "score"
        ] == pytest.approx(1)
        assert manager.search_memories("the quiet harbour at", limit=1, mode="vector")[0]["score"] < 0.9
