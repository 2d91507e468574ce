"""The index outgrows its form by itself: beside searches and changes, and whatever comes in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest
from sqlalchemy import delete

from memory import one_process
from memory.catalogue import Catalogue
from memory.database import Database
from memory.faiss_index import FAISSIndex
from memory.index_building import index_of_rows
from memory.index_growth import Growth
from memory.index_sync import IndexSync
from memory.local_index import LocalIndex
from memory.memory_manager import MemoryManager
from memory.models import Identity, MemoryType, Seq
from memory.reembedding import reembed
from memory.schema import index_events
from memory.snapshot import Snapshot
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from memory.window_index import WindowIndex
from memory.word_index import WordIndex
from tests.fakes import TwinEmbedder, WordEmbedder
from tests.invariants import assert_index_equals_database
from tests.making import caught_up, open_index, raw, request, searcher, store_all
from tests.waiting import wait_until

BOUND = 200
WORDS = [f"word{i}" for i in range(60)]


def texts(n: int, *, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=4)) + f" {seed} {i}" for i in range(n)]


def store(database: Database, n: int, *, seed: int = 0, namespace: str = "default") -> list[int]:
    return store_all(database, *(raw(text, namespace=namespace) for text in texts(n, seed=seed)))


@pytest.fixture
def sync(database: Database, home: Path) -> Iterator[IndexSync]:
    opened = open_index(database, home, exact_up_to=BOUND)
    yield opened
    opened.close()


def is_exact(sync: IndexSync) -> bool:
    return sync.replica.slack == 0


def made(sync: IndexSync) -> None:
    """Begin to make a larger index, and wait until that is done; it does not serve yet."""
    assert not sync.grow()
    making = sync._growth._making
    assert making is not None
    making.join(timeout=60)
    assert making.made is not None


def try_again_at_once(sync: IndexSync) -> None:
    sync._growth._not_before = 0


def grown(sync: IndexSync) -> None:
    wait_until(sync.grow, timeout_s=60, why="the index has grown")


def test_an_index_grows_beyond_its_bound_and_not_before(database: Database, sync: IndexSync) -> None:
    store(database, BOUND)
    caught_up(sync)
    assert not sync.grow()
    assert sync._growth._making is None
    store(database, 1, seed=1)
    caught_up(sync)
    grown(sync)
    assert not is_exact(sync)
    assert_index_equals_database(sync)
    assert not sync.grow()
    assert sync._growth._making is None


def test_what_changes_while_it_grows_is_not_lost(database: Database, sync: IndexSync) -> None:
    ids = store(database, 300)
    caught_up(sync)
    sync.grow()
    for n in range(5):
        store(database, 40, seed=n + 1)
        MemoryStore(database).delete(ids[n])
        sync.apply_next()
    made_or_not_yet = sync.grow()
    MemoryStore(database).delete(ids[9])
    caught_up(sync)
    if not made_or_not_yet:
        grown(sync)
    caught_up(sync)
    assert len(sync.replica.content.index) == 300 + 200 - 6
    assert_index_equals_database(sync)


def test_searches_go_on_while_it_grows(database: Database, sync: IndexSync) -> None:
    store(database, 400)
    caught_up(sync)
    look, stop, counts = searcher(sync, database), threading.Event(), list[int]()
    queries = texts(5, seed=3)

    def search() -> None:
        while not stop.is_set():
            counts.extend(len(look.search(request(q, limit=20), wait_s=0)) for q in queries)

    thread = threading.Thread(target=search)
    thread.start()
    grown(sync)
    n_before = len(counts)
    wait_until(lambda: len(counts) > n_before + 5, timeout_s=60, why="searches go on")
    stop.set()
    thread.join(timeout=60)
    assert set(counts) == {20}


def test_the_grown_index_gives_exact_scores_in_order(database: Database, sync: IndexSync) -> None:
    everything = texts(600)
    ids = store(database, 600)
    caught_up(sync)
    grown(sync)
    vectors = WordEmbedder().encode(everything)
    for query in texts(20, seed=9):
        scores = vectors @ WordEmbedder().encode([query])[0]
        best = np.argsort(-scores)[:10]
        hits = searcher(sync, database).search(request(query, limit=10), wait_s=0)
        assert [hit.memory.id for hit in hits] == [ids[i] for i in best]
        assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-6)
        least = float(scores[best[4]])
        some = searcher(sync, database).search(request(query, limit=10, min_score=least - 1e-6), wait_s=0)
        assert [hit.memory.id for hit in some] == [ids[i] for i in best[:5]]


def test_of_equal_contents_the_oldest_come_first(database: Database, sync: IndexSync) -> None:
    store(database, 300)
    same = store_all(database, *(raw("the very same words", uid=f"u{i}") for i in range(80)))
    caught_up(sync)
    grown(sync)
    hits = searcher(sync, database).search(request("the very same words", limit=7), wait_s=0)
    assert [hit.memory.id for hit in hits] == sorted(same)[:7]


def test_a_filter_never_starves_the_result_of_a_grown_index(database: Database, sync: IndexSync) -> None:
    store(database, 600)
    few = store(database, 15, seed=5, namespace="few")
    tasks = store_all(database, *(raw(t, memory_type="task") for t in texts(250, seed=6)))
    caught_up(sync)
    grown(sync)
    look = searcher(sync, database)
    assert len(look.search(request("word1", namespace="few", limit=20), wait_s=0)) == 15
    MemoryStore(database).delete(few[0])
    assert len(look.search(request("word1", namespace="few", limit=14), wait_s=0)) == 14
    hits = look.search(request("word2", memory_types=(MemoryType.TASK,), limit=250), wait_s=0)
    assert {hit.memory.id for hit in hits} == set(tasks)
    assert len(look.search(request("word2", limit=1000), wait_s=0)) == 850


def test_a_grown_index_is_saved_and_loaded_as_it_is(database: Database, home: Path, sync: IndexSync) -> None:
    ids = store(database, 300)
    caught_up(sync).save_snapshot()
    grown(sync)
    assert sync.n_unsaved == 300
    sync.save_snapshot()
    MemoryStore(database).delete(ids[7])
    store(database, 10, seed=1)
    again = open_index(database, home, exact_up_to=BOUND)
    assert again.replica.applied_seq == 300
    assert not is_exact(again)
    assert_index_equals_database(again)


def test_a_rebuild_makes_the_form_that_so_many_need(database: Database, home: Path, sync: IndexSync) -> None:
    store(database, BOUND)
    assert is_exact(caught_up(sync))
    store(database, 300, seed=1)
    sync.rebuild("to see its form")
    assert not is_exact(sync)
    assert_index_equals_database(sync)


def test_rows_that_are_rare_among_their_ids_are_sampled_too(database: Database) -> None:
    identity = EventLog(database).claim_model(fingerprint=WordEmbedder.fingerprint, dim=32)
    ids = store(database, 600)
    for memory_id in ids[:-40]:
        MemoryStore(database).delete(memory_id)
    content = index_of_rows(database, identity, use_gpu=False, exact_up_to=20)
    assert content.index.slack > 0
    assert content.index.ids().tolist() == ids[-40:]


def test_events_that_it_needs_are_not_pruned(database: Database, sync: IndexSync) -> None:
    store(database, 300)
    caught_up(sync).save_snapshot()
    made(sync)
    for n in range(3):
        store(database, 20, seed=n + 1)
        caught_up(sync).save_snapshot()
    assert [event.seq for event in EventLog(database).after(Seq(0), limit=1)] == [301]
    assert sync.grow()
    assert_index_equals_database(sync)
    store(database, 1, seed=9)
    caught_up(sync).save_snapshot()
    assert [event.seq for event in EventLog(database).after(Seq(0), limit=1)] == [361]


def test_where_events_are_gone_it_is_thrown_away_and_made_again(database: Database, sync: IndexSync) -> None:
    store(database, 300)
    caught_up(sync)
    made(sync)
    store(database, 20, seed=1)
    caught_up(sync)
    with database.write() as connection:
        connection.execute(delete(index_events))
    assert not sync.grow()
    assert is_exact(sync)
    assert_index_equals_database(sync)
    assert not sync.grow()
    assert sync._growth._making is None  # not at once
    try_again_at_once(sync)
    grown(sync)
    assert_index_equals_database(sync)


@pytest.mark.parametrize("first", ["grow", "apply"])
def test_where_the_vectors_were_replaced_meanwhile_the_new_ones_are_indexed(
    database: Database, sync: IndexSync, first: str
) -> None:
    store(database, 300)
    caught_up(sync)
    made(sync)
    for model in (TwinEmbedder(), WordEmbedder()):
        reembed(database, model, on_progress=lambda _done, _left: None)
    if first == "grow":
        sync.grow()  # what it goes over to is as old as what it had
    caught_up(sync)
    assert not sync.grow()
    assert sync.identity == EventLog(database).identity()
    assert_index_equals_database(sync)
    assert not is_exact(sync)


def test_a_rebuild_throws_away_what_is_being_made(database: Database, sync: IndexSync) -> None:
    store(database, 300)
    caught_up(sync)
    made(sync)
    sync.rebuild("something was wrong")
    assert sync._growth._making is None
    assert_index_equals_database(sync)


def test_closing_ends_what_is_being_made(database: Database, sync: IndexSync) -> None:
    store(database, 300)
    caught_up(sync)
    sync.grow()
    making = sync._growth._making
    sync.close()
    assert making is not None
    assert not making.is_alive()
    sync.close()


def test_where_the_database_is_away_it_is_tried_again_later() -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    identity = Identity(lineage="a", model_fingerprint="m", dim=4)
    index = FAISSIndex(4)
    index.add_embeddings(np.eye(4, dtype=np.float32), range(4))
    content = Snapshot(
        index=index,
        windows=WindowIndex(FAISSIndex(4)),
        catalogue=Catalogue(),
        words=WordIndex(),
        applied_seq=Seq(7),
    )
    growth = Growth(away, use_gpu=False, exact_up_to=3, try_again_s=3600)

    def is_given_up() -> bool:
        return growth.take(identity) is None and growth._making is None

    growth.begin_if_outgrown(content, identity, applied_seq=Seq(7))
    assert growth.needs_after == 7
    wait_until(is_given_up, timeout_s=60, why="the attempt failed")
    assert growth.needs_after is None
    growth.begin_if_outgrown(content, identity, applied_seq=Seq(7))
    assert growth._making is None
    growth._not_before = 0
    growth.begin_if_outgrown(content, identity, applied_seq=Seq(7))
    assert growth._making is not None
    growth.close()


def test_a_damaged_vector_of_a_grown_index_is_found(database: Database, sync: IndexSync) -> None:
    ids = store(database, 300)
    caught_up(sync)
    grown(sync)
    written = sync.replica.content.index._form.written
    place = written.direct_map.get(ids[5])
    code = faiss.rev_swig_ptr(written.invlists.get_single_code(place >> 32, place & 0xFFFFFFFF), 32)
    code[3] ^= 1
    comparison = sync.compare()
    assert (comparison.n_different, comparison.examples) == (1, (ids[5],))


def test_a_manager_grows_saves_and_opens_again(
    database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_process, "LocalIndex", partial(LocalIndex, exact_up_to=BOUND))
    drafts = [{"content": text} for text in texts(400)]
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        added = manager.add_memories(drafts)
        index = manager._process.index

        def has_grown() -> bool:
            assert manager.search_memories(added[3].content, limit=1)[0]["memory"].id == added[3].id
            return index._index.replica.slack > 0

        wait_until(has_grown, timeout_s=60, why="the index has grown")
        manager.delete_memory(added[3].id)
        manager.update_memory(added[4].id, "something else entirely")
        assert manager.search_memories("something else entirely", limit=1, mode="vector")[0][
            "score"
        ] == pytest.approx(1)
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        assert manager._process.index._index.replica.slack > 0
        assert manager._process.index.compare().equal
        assert len(manager.search_memories("word1", limit=1000)) == 399
