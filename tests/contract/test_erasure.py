"""Erasure on real servers: every place that holds memories, and what the receipt says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select

from memory.broker import Nudger, make_celery
from memory.database import Database
from memory.erasure import Erasure, ErasureReceipt
from memory.errors import InvalidMemory, ServerAway
from memory.index_sync import IndexSync
from memory.ingestion import Ingestion
from memory.messages import to_envelope
from memory.models import MemoryId, SearchHit
from memory.replies import Replies
from memory.schema import associations, memories, next_embeddings
from memory.selector import selector
from memory.settings import read_settings
from memory.snapshot import SnapshotFolder
from memory.store.associations import Associations
from memory.store.dead_letters import DeadLetters
from memory.store.erasing import Erasing
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_index_equals_database, assert_one_row_a_key
from tests.making import caught_up, open_index, raw, request, searcher, store_all
from workers.embed import Drain


class Place:
    """Everything that holds memories, and an erasure over it."""

    def __init__(self, database: Database, stream: IngestStream, redis_url: str, home: Path) -> None:
        self.database = database
        self.stream = stream
        self.redis_url = redis_url
        self.settings = read_settings(redis_url=redis_url)
        self.replies = Replies(self.settings.redis_database_url("results"))
        self.sync: IndexSync = open_index(database, home)
        self.folder = SnapshotFolder(home / "index")
        self.letters = DeadLetters(database)
        self.store = MemoryStore(database)

    def erasure(self, **given: Any) -> Erasure:
        parts = {
            "database": self.database,
            "stream": self.stream,
            "replies": self.replies,
            "ask_indexer": self.sync.let_go,
            "search": lambda asked: searcher(self.sync, self.database).search(asked, wait_s=0),
        }
        return Erasure(**{**parts, **given})

    def erase(self, **chosen: Any) -> ErasureReceipt:
        return self.erasure().erase(selector(**chosen))

    def drain(self, *, embedder: WordEmbedder | None = None) -> Drain:
        return Drain(
            consumer="embed-1",
            settings=self.settings,
            stream=self.stream,
            ingestion=Ingestion(store=self.store, embedder=embedder or WordEmbedder()),
            dead_letters=self.letters,
            nudger=Nudger(make_celery(self.settings), self.stream),
            on_progress=lambda: None,
            should_stop=lambda: False,
        )

    def push(self, *contents: str, **fields: Any) -> None:
        envelopes = [to_envelope(raw(content, uid=content, **fields)) for content in contents]
        self.stream.push(envelopes, lane="bulk")

    def row(self, **same: Any) -> Any:
        conditions = [memories.c[name] == value for name, value in same.items()]
        with self.database.read() as connection:
            return connection.execute(select(memories).where(*conditions)).one_or_none()


@pytest.fixture
def place(database: Database, stream: IngestStream, redis_url: str, home: Path) -> Iterator[Place]:
    made = Place(database, stream, redis_url, home)
    yield made
    made.replies.close()


def n_of(place: Place) -> int:
    return place.store.counts().stored


def test_a_namespace_is_erased_and_every_other_one_stays(place: Place) -> None:
    store_all(place.database, *(raw(f"red memory {i}", namespace="red") for i in range(30)))
    kept = store_all(place.database, *(raw(f"blue memory {i}", namespace="blue") for i in range(5)))
    caught_up(place.sync).save_snapshot()
    receipt = place.erase(namespace="red")
    assert receipt.complete
    assert (receipt.n_erased, receipt.n_searches, receipt.seq) == (30, 30, 65)
    assert receipt.remaining.total == 0
    assert sorted(place.store.live([MemoryId(i) for i in range(1, 36)])) == kept
    assert _search(place, "blue memory 3", namespace="blue")[0].memory.id == kept[3]
    assert_index_equals_database(place.sync)
    assert_events_contiguous(place.database)


def test_a_source_is_matched_exactly_alone_and_within_a_namespace(place: Place) -> None:
    for name in ("red", "blue"):
        both = (raw(f"{source} {name}", source=source, namespace=name) for source in ("Chat", "chat"))
        store_all(place.database, *both)
    assert place.erase(namespace="red", source="chat").n_erased == 1
    assert place.row(content="Chat red") is not None
    assert place.erase(source="chat").n_erased == 1
    assert {row.source for row in _live_rows(place)} == {"Chat"}


def test_single_memories_are_erased_by_their_ids_with_what_still_waits_under_their_keys(
    place: Place,
) -> None:
    ids = store_all(place.database, *(raw(f"memory {i}", uid=f"memory {i}") for i in range(5)))
    place.push("memory 1", "memory 4")
    receipt = place.erase(ids=[ids[0], ids[1], 999_999])
    assert (receipt.n_erased, receipt.n_entries, receipt.complete) == (2, 1, True)
    assert n_of(place) == 3
    assert place.stream.waiting()["bulk"] == 1


def test_a_dry_run_counts_in_every_place_and_erases_nothing(place: Place) -> None:
    store_all(place.database, *(raw(f"stored {i}", namespace="red") for i in range(4)))
    place.push("waits", namespace="red")
    _letter(place, b'{"namespace":"red","uid":"dead"', namespace="red")
    _give(place, raw("in an answer", namespace="red"))
    receipt = place.erasure().count(selector(namespace="red"))
    left = receipt.remaining
    assert (left.rows, left.streams, left.dead_letters, left.results) == (4, 1, 1, 1)
    assert left.index is left.snapshots is left.found_by_search is None
    assert receipt.dry_run
    assert not receipt.complete
    assert place.erasure().count(selector(namespace="red")).remaining == left


def test_a_tombstone_keeps_nothing_of_what_was_said_nor_its_relations_nor_a_vector_of_any_model(
    place: Place,
) -> None:
    one, two = store_all(place.database, *(raw(f"about {i}", metadata={"who": "Inês"}) for i in range(2)))
    Associations(place.database).put(
        MemoryId(one), MemoryId(two), relationship_type="next", strength=1.0, metadata={}
    )
    with place.database.write() as connection:
        beside = {"memory_id": one, "model_fingerprint": "other", "embedding": b"1234"}
        connection.execute(next_embeddings.insert().values(beside))
    place.erase(ids=[one])
    row = place.row(id=one)
    assert row.content is row.metadata is row.embedding is None
    assert row.deleted_at is not None
    with place.database.read() as connection:
        assert not connection.execute(select(associations)).all()
        assert not connection.execute(select(next_embeddings)).all()


def test_memories_that_wait_for_their_embedding_or_failed_it_are_erased_too(place: Place) -> None:
    ids = store_all(place.database, *(raw(f"memory {i}", namespace="red") for i in range(3)))
    with place.database.write() as connection:
        for memory_id, status in zip(ids, ("pending", "failed"), strict=False):
            values = {"status": status, "embedding": None}
            connection.execute(memories.update().where(memories.c.id == memory_id).values(values))
    receipt = place.erase(namespace="red")
    assert (receipt.n_erased, receipt.complete) == (3, True)


def test_what_waits_on_the_streams_never_becomes_a_memory(place: Place) -> None:
    place.push(*(f"red {i}" for i in range(250)), namespace="red")
    place.push("blue", namespace="blue")
    receipt = place.erase(namespace="red")
    assert (receipt.n_entries, receipt.n_erased, receipt.complete) == (250, 0, True)
    assert place.drain().run() == 1
    assert n_of(place) == 1
    assert place.stream.n_unacknowledged() == 0


def test_what_a_worker_has_in_hand_stays_erased_when_it_finishes_or_gets_it_again(place: Place) -> None:
    place.push(*(f"red {i}" for i in range(20)), namespace="red")
    in_hand = place.stream.read_new("embed-1", count=10)
    drain = place.drain()
    receipt = place.erase(namespace="red")
    assert (receipt.n_entries, receipt.complete) == (20, True)
    drain._batches.finish(in_hand)  # the worker goes on with what it read
    place.push(*(f"red {i}" for i in range(20)), namespace="red")  # and all are delivered again
    drain.run()
    assert n_of(place) == 0
    assert place.store.counts().deleted == 20
    assert place.row(uid="red 3").content is None
    assert_one_row_a_key(place.database)


def test_what_a_worker_commits_in_the_middle_of_an_erasure_is_erased(place: Place) -> None:
    place.push(*(f"red {i}" for i in range(10)), namespace="red")
    in_hand = place.stream.read_new("embed-1", count=10)

    class Overtaken(IngestStream):
        """Whose worker stores everything between the look at the stream and the taking of the keys."""

        def pages(self, lane: Any) -> Any:
            for page in super().pages(lane):
                place.drain()._batches.finish(in_hand)
                yield page

    overtaken = Overtaken(place.redis_url)
    receipt = place.erasure(stream=overtaken).erase(selector(namespace="red"))
    overtaken.close()
    assert (receipt.n_erased, receipt.complete) == (10, True)
    assert n_of(place) == 0


def test_an_entry_that_was_put_back_meanwhile_is_erased_and_one_enqueued_meanwhile_is_not(
    place: Place,
) -> None:
    [row_id] = store_all(place.database, raw("old", uid="old", namespace="red"))

    class Busy(IngestStream):
        """On which something arrives right after the erasure has noted where the streams end."""

        def ends(self) -> Any:
            found = super().ends()
            if self.waiting()["bulk"] == 0:
                place.push("old", "new", namespace="red")
            return found

    busy = Busy(place.redis_url)
    receipt = place.erasure(stream=busy).erase(selector(namespace="red"))
    busy.close()
    assert (receipt.n_erased, receipt.n_entries, receipt.complete) == (1, 1, True)
    place.drain().run()
    assert place.row(id=row_id).deleted_at is not None
    assert place.row(uid="new").content == "new"


def test_dead_letters_are_erased_by_their_own_columns_or_by_what_their_bytes_say(place: Place) -> None:
    _letter(place, b"\x80 garbage", namespace="red", uid="1")
    _letter(place, b'{"namespace":"red","uid":"2","content":', namespace="red", uid="2")
    _letter(place, b'{"namespace":"red","source":"chat","content":"x"}')
    _letter(place, b'{"namespace":"red","uid":"4","source":"mail","content":"x"}', namespace="red", uid="4")
    _letter(place, b"\x80 nobody's")
    assert place.erase(source="chat").n_dead_letters == 1
    assert place.erase(namespace="red").n_dead_letters == 3
    [left] = place.letters.list(limit=10)
    assert left.body == b"\x80 nobody's"


def test_a_memory_that_a_worker_gives_up_after_its_erasure_leaves_no_dead_letter(place: Place) -> None:
    place.push("a curse", namespace="red")
    in_hand = place.stream.read_new("embed-1", count=10)
    batches = place.drain(embedder=WordEmbedder(poison="curse"))._batches
    taken = batches._jobs(in_hand)
    assert place.erase(namespace="red").complete
    batches._isolate(taken, RuntimeError("this text breaks the model"))  # it asked before what is known
    assert place.letters.count() == 0


def test_an_answer_that_nobody_took_and_that_holds_an_erased_memory_is_removed(place: Place) -> None:
    red, blue = raw("red", namespace="red"), raw("blue", namespace="blue")
    _give(place, red, blue)
    kept = _give(place, blue)
    place.replies.give(place.replies.new_address(), {"ok": False, "error": "x", "message": "red"})
    results = redis.Redis.from_url(place.settings.redis_database_url("results"))
    results.rpush("mem:reply:garbage", b"\x80", b"[]", b'{"hits":[1]}')
    assert place.erase(namespace="red").n_replies == 1
    assert len(results.keys("mem:reply:*")) == 3
    assert place.replies.take(kept, timeout_s=1) is not None


def test_both_kept_snapshots_let_go_of_the_erased_and_the_quarantine_is_emptied(place: Place) -> None:
    ids = store_all(place.database, *(raw(f"red {i}", namespace="red") for i in range(20)))
    kept = store_all(place.database, raw("blue", namespace="blue"))
    for _ in range(3):
        caught_up(place.sync).save_snapshot()
    refused = place.folder.directory / "quarantine" / "refused"
    refused.mkdir(parents=True)
    (refused / "vectors.faiss").write_bytes(b"vectors of red memories")
    (place.folder.directory / "snapshots" / "tmp-unfinished").mkdir()
    receipt = place.erase(namespace="red")
    assert (receipt.n_quarantined, receipt.complete) == (1, True)
    assert [list(held) for held in place.folder.held() if held is not None] == [kept, kept]
    assert not any(refused.parent.iterdir())
    assert not set(ids) & set(place.sync.replica.content.index.ids().tolist())
    name, _ = place.folder.load(place.sync.identity)
    assert place.erase(namespace="red").complete
    assert place.folder.current() == name, "nothing to let go of: nothing is written"


def test_an_index_that_does_not_let_go_makes_the_receipt_incomplete(place: Place) -> None:
    [one] = store_all(place.database, raw("red", namespace="red"))
    hit = _search_after(place, "red", namespace="red")
    assert hit.memory.id == one
    receipt = place.erasure(search=lambda _: [hit]).erase(selector(namespace="red"))
    assert receipt.remaining.found_by_search == 1
    assert not receipt.complete
    store_all(place.database, raw("green", namespace="green"))
    caught_up(place.sync)
    index = place.sync.replica.content.index
    index.add_embeddings(WordEmbedder().encode(["a ghost"]), [77])
    receipt = place.erase(namespace="green")
    assert (receipt.remaining.index, receipt.complete) == (1, False)


@pytest.mark.parametrize("moment", ["streams", "rows", "letters", "index", "search", "replies"])
def test_killed_at_any_point_the_same_call_again_finishes(
    place: Place, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_all(place.database, *(raw(f"stored {i}", namespace="red") for i in range(5)))
    caught_up(place.sync).save_snapshot()
    place.push(*(f"waits {i}" for i in range(5)), namespace="red")
    _letter(place, b"\x80", namespace="red", uid="dead")
    _give(place, raw("red", namespace="red"))

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    erasure = place.erasure(**{"index": {"ask_indexer": die}, "search": {"search": die}}.get(moment, {}))
    victims: dict[str, tuple[Any, str]] = {
        "streams": (place.stream, "acknowledge"),
        "rows": (Erasing, "bury"),
        "letters": (Erasing, "remove_letters"),
        "replies": (place.replies, "remove"),
    }
    if moment in victims:
        monkeypatch.setattr(*victims[moment], die)
    with pytest.raises(KeyboardInterrupt):
        erasure.erase(selector(namespace="red"))
    monkeypatch.undo()
    receipt = place.erase(namespace="red")
    assert receipt.complete
    place.drain().run()
    assert n_of(place) == place.letters.count() == 0
    again = place.erase(namespace="red")
    assert again.complete
    assert again.n_erased + again.n_entries + again.n_dead_letters + again.n_replies == 0
    assert_events_contiguous(place.database)


def test_where_the_indexer_is_away_all_else_is_erased_already(place: Place) -> None:
    store_all(place.database, raw("red", namespace="red"))
    place.push("waits", namespace="red")

    def away() -> Any:
        raise ServerAway("away")

    with pytest.raises(ServerAway):
        place.erasure(ask_indexer=away).erase(selector(namespace="red"))
    assert n_of(place) == place.stream.waiting()["bulk"] == 0
    assert place.erase(namespace="red").complete


def test_nothing_that_matches_is_a_complete_receipt_of_zeros_that_touches_no_snapshot(place: Place) -> None:
    refused = place.folder.directory / "quarantine" / "refused"
    refused.mkdir(parents=True)

    def never(*_: Any) -> Any:
        pytest.fail("there is nothing to ask about")

    receipt = place.erasure(ask_indexer=never, search=never).erase(selector(namespace="nobody"))
    assert receipt.complete
    data = json.loads(json.dumps(receipt.as_json()))
    assert data["selector"] == {"namespace": "nobody", "source": None, "ids": []}
    assert not any(n for name, n in data.items() if name.startswith("n_"))
    assert refused.is_dir()


def test_many_rows_are_buried_in_batches_and_sampled_evenly(place: Place) -> None:
    store_all(place.database, *(raw(f"red {i}", namespace="red") for i in range(2100)))
    asked: list[str] = []

    def search(request: Any) -> Sequence[SearchHit]:
        asked.append(request.query)
        return []

    receipt = place.erasure(search=search).erase(selector(namespace="red"))
    assert (receipt.n_erased, receipt.n_searches, receipt.complete) == (2100, 100, True)
    assert asked[:2] == ["red 0", "red 21"]
    assert asked[-1] == "red 2079"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sqlite_file_keeps_nothing_of_it_in_its_free_pages(place: Place, home: Path) -> None:
    said = "unmistakable " * 700
    store_all(place.database, *(raw(f"{said}{i}", namespace="red") for i in range(20)))
    place.database.close()  # which brings everything from SQLite's log into the file
    assert b"unmistakable" in (home / "memories.db").read_bytes()
    assert place.erase(namespace="red").complete
    place.database.close()
    assert b"unmistakable" not in (home / "memories.db").read_bytes()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "selector = None: must be a namespace, a source, or ids"),
        ({"ids": []}, "selector = None: must be"),
        ({"ids": [1], "namespace": "red"}, "must be alone: without a namespace and a source"),
        ({"ids": [1], "source": "chat"}, "must be alone"),
        ({"ids": [0]}, "id = 0: must be a whole number"),
        ({"ids": [True]}, "id = True: must be a whole number"),
        ({"namespace": ""}, "namespace = ''"),
        ({"source": " chat"}, "source = ' chat'"),
    ],
)
def test_a_bad_choice_is_named(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidMemory) as caught:
        selector(**chosen)
    assert message in str(caught.value)


def _live_rows(place: Place) -> Sequence[Any]:
    with place.database.read() as connection:
        return connection.execute(select(memories).where(memories.c.deleted_at.is_(None))).all()


def _search(place: Place, query: str, **fields: Any) -> list[SearchHit]:
    return searcher(place.sync, place.database).search(request(query, **fields), wait_s=0)


def _search_after(place: Place, query: str, **fields: Any) -> SearchHit:
    caught_up(place.sync)
    return _search(place, query, **fields)[0]


def _letter(place: Place, body: bytes, *, namespace: str | None = None, uid: str | None = None) -> None:
    key = (namespace, uid or body.hex()) if namespace else None
    place.letters.bury(entry_id=f"bulk:{body.hex()}", key=key, body=body, reason="x", n_deliveries=1)


def _give(place: Place, *raws: Any) -> str:
    """Put an answer that holds these memories, as a search does; return its address."""
    address = place.replies.new_address()
    hits = [
        SearchHit(memory=one.stored_as(MemoryId(n)), score=0.5, rank=n) for n, one in enumerate(raws, start=1)
    ]
    place.replies.give(address, {"ok": True, "hits": [hit.as_json() for hit in hits]})
    return address
