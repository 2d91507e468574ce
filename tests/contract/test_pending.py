"""Memories that have a row before they have an embedding: accepted by the database, or reworded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import update

from ingest.producer import Producer
from memory.broker import Nudger, make_celery
from memory.database import Database, database_now
from memory.errors import ServerAway
from memory.messages import raw_of, to_envelope
from memory.models import Memory, MemoryId
from memory.pending import Requeuer
from memory.revision import Revision
from memory.schema import memories
from memory.settings import read_settings
from memory.store.dead_letters import DeadLetters
from memory.store.memories import MemoryStore
from memory.store.pending import PendingRows
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch
from tests.contract.test_drain import AWAY, Worker
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_index_equals_database, assert_one_row_a_key
from tests.making import caught_up, open_index, raw, request, searcher, store_all


def producer(database: Database, stream: IngestStream, redis_url: str) -> Producer:
    settings = read_settings(redis_url=redis_url)
    return Producer(
        stream=stream,
        nudger=Nudger(make_celery(settings), stream),
        max_content_bytes=1000,
        rows=PendingRows(database),
    )


def requeued(database: Database, stream: IngestStream, redis_url: str) -> int:
    """Look for what has lost its place on the stream, a minute from now."""
    with database.write() as connection:
        a_minute_ago = database_now(connection) - timedelta(minutes=1)
        connection.execute(update(memories).values(stored_at=a_minute_ago))
    return requeued_now(database, stream, redis_url)


def requeued_now(database: Database, stream: IngestStream, redis_url: str) -> int:
    """Look for what has lost its place on the stream."""
    mender = Requeuer(PendingRows(database), stream, StreamWatch(redis_url))
    return mender.run(should_stop=lambda: False)


def reword(database: Database, memory_id: int, content: str) -> Memory:
    """Change a content as the client does, which has no model."""
    revision = Revision(store=MemoryStore(database), embedder=None, max_content_bytes=1000)
    return revision.revise(MemoryId(memory_id), content=content)


def empty(redis_url: str) -> None:
    connection = redis.Redis.from_url(redis_url)
    connection.flushall()
    connection.close()


def test_what_the_database_accepted_is_stored_at_once_and_embedded_behind_it(
    database: Database, stream: IngestStream, redis_url: str, home: Path
) -> None:
    sync = open_index(database, home)
    producer(database, stream, redis_url).enqueue_many([f"memory {i}" for i in range(100)], patience_s=1)
    counts = MemoryStore(database).counts()
    assert (counts.stored, counts.pending, counts.searchable) == (100, 100, 0)
    worker = Worker(stream, database, redis_url)
    worker.drain.run()
    caught_up(sync)
    counts = MemoryStore(database).counts()
    assert (counts.stored, counts.pending, counts.searchable) == (100, 0, 100)
    assert worker.embedder.n_texts == 100
    assert stream.waiting() == {"fast": 0, "bulk": 0}
    assert_index_equals_database(sync)
    assert_events_contiguous(database)


def test_a_uid_that_is_there_keeps_its_first_content_whatever_comes_second(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    given = producer(database, stream, redis_url)
    given.push([raw("first", uid="u"), raw("twice in one push", uid="u")], lane="bulk")
    given.push([raw("second", uid="u")], lane="fast")
    Worker(stream, database, redis_url).drain.run()
    given.push([raw("third", uid="u")], lane="fast")
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).get_by_uid("u", namespace="default").content == "first"
    assert_one_row_a_key(database)


def test_a_memory_deleted_before_it_was_embedded_stays_deleted(
    database: Database, stream: IngestStream, redis_url: str, home: Path
) -> None:
    given = producer(database, stream, redis_url)
    given.push([raw("gone", uid="u")], lane="fast")
    store = MemoryStore(database)
    store.delete(store.get_by_uid("u", namespace="default").id)
    worker = Worker(stream, database, redis_url)
    worker.drain.run()
    assert worker.embedder.n_texts == 0
    assert store.counts().stored == 0
    assert_index_equals_database(open_index(database, home))


def test_redis_away_or_full_refuses_nothing_that_the_database_accepts(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    full = IngestStream(redis_url, max_waiting=1)
    given = producer(database, full, redis_url)
    assert len(given.enqueue_many(["a", "b", "c"], patience_s=0)) == 3
    away = producer(database, IngestStream("redis://127.0.0.1:1"), redis_url)
    away.enqueue(raw("d"))
    assert MemoryStore(database).counts().pending == 4
    assert stream.waiting() == {"fast": 0, "bulk": 0}
    assert requeued(database, stream, redis_url) == 4
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).counts().pending == 0


def test_what_an_emptied_redis_forgot_is_pushed_again_and_once_only(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    producer(database, stream, redis_url).enqueue_many([f"memory {i}" for i in range(1200)], patience_s=1)
    empty(redis_url)
    stream.ensure_groups()
    assert requeued(database, stream, redis_url) == 1200
    assert requeued_now(database, stream, redis_url) == 0
    assert stream.waiting()["bulk"] == 1200
    worker = Worker(stream, database, redis_url)
    worker.drain.run()
    assert worker.embedder.n_texts == 1200
    assert requeued(database, stream, redis_url) == 0


def test_what_may_have_its_place_on_the_stream_is_not_pushed_again(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    producer(database, stream, redis_url).enqueue_many(["a", "b"], patience_s=1)
    assert requeued_now(database, stream, redis_url) == 0
    connection = redis.Redis.from_url(redis_url)
    seconds, _ = connection.time()  # type: ignore[misc]
    connection.xadd("mem:in:fast", {"m": b"of an hour ago"}, id=f"{(seconds - 3600) * 1000}-0")
    connection.close()
    assert requeued(database, stream, redis_url) == 0
    assert stream.waiting()["bulk"] == 2


def test_a_reworded_memory_is_searched_by_its_new_content_alone(
    database: Database, stream: IngestStream, redis_url: str, home: Path
) -> None:
    [one, _] = store_all(database, raw("a red kite"), raw("a blue boat"))
    sync = caught_up(open_index(database, home))
    changed = reword(database, one, "green tea")
    assert (changed.content, changed.version) == ("green tea", 2)
    caught_up(sync)
    found = searcher(sync, database).search(request("a red kite"), wait_s=0)
    assert [hit.memory.content for hit in found] == ["a blue boat"]
    assert_index_equals_database(sync)
    stream.push([to_envelope(raw_of(changed))], lane="fast")
    Worker(stream, database, redis_url).drain.run()
    caught_up(sync)
    found = searcher(sync, database).search(request("green tea"), wait_s=0)
    assert found[0].memory.content == "green tea"
    assert found[0].score == pytest.approx(1, abs=1e-5)
    assert_index_equals_database(sync)
    assert_events_contiguous(database)


def test_a_memory_reworded_while_it_is_embedded_gets_the_embedding_of_its_last_content(
    database: Database, stream: IngestStream, redis_url: str, home: Path
) -> None:
    [one] = store_all(database, raw("first"))
    stream.push([to_envelope(raw_of(reword(database, one, "second")))], lane="fast")

    class Reworder(WordEmbedder):
        """Another client rewords the memory while the model works on it."""

        def encode(self, texts):  # type: ignore[no-untyped-def]
            if list(texts) == ["second"]:
                stream.push([to_envelope(raw_of(reword(database, one, "third")))], lane="fast")
            return super().encode(texts)

    Worker(stream, database, redis_url, embedder=Reworder()).drain.run()
    sync = caught_up(open_index(database, home))
    [hit] = searcher(sync, database).search(request("third"), wait_s=0)
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert MemoryStore(database).counts().pending == 0
    assert_index_equals_database(sync)


def test_metadata_alone_costs_no_pass_through_the_model_and_leaves_the_index(
    database: Database, home: Path
) -> None:
    [one] = store_all(database, raw("a red kite"))
    revision = Revision(store=MemoryStore(database), embedder=None, max_content_bytes=1000)
    assert revision.revise(MemoryId(one), metadata={"mood": "good"}).metadata == {"mood": "good"}
    assert MemoryStore(database).counts().pending == 0
    sync = caught_up(open_index(database, home))
    assert searcher(sync, database).search(request("a red kite"), wait_s=0)


def test_a_row_that_cannot_be_embedded_is_dead_and_is_tried_again_on_demand(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    given = producer(database, stream, redis_url)
    given.push([raw("the poison word", uid="bad"), raw("a good one", uid="good")], lane="bulk")
    Worker(stream, database, redis_url, embedder=WordEmbedder(poison="poison")).drain.run()
    letters, store = DeadLetters(database), MemoryStore(database)
    key = ("default", "bad")
    assert "breaks the model" in letters.reasons([key])[key]
    assert store.progress([key])[key].failed
    assert requeued(database, stream, redis_url) == 0
    [letter] = letters.list(limit=10)
    stream.push([letter.body], lane="bulk")
    assert letters.release([letter.id]) == 1
    assert store.counts().pending == 1
    Worker(stream, database, redis_url).drain.run()
    assert (store.counts().pending, store.counts().stored) == (0, 2)
    assert not store.progress([key])[key].failed


def test_a_purged_dead_letter_takes_its_row_with_it(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    given = producer(database, stream, redis_url)
    given.push([raw("the poison word", uid="bad"), raw("a good one", uid="good")], lane="bulk")
    Worker(stream, database, redis_url, embedder=WordEmbedder(poison="poison")).drain.run()
    assert DeadLetters(database).purge(None) == 1
    key = ("default", "bad")
    assert MemoryStore(database).progress([key])[key].deleted
    assert MemoryStore(database).counts().stored == 1
    assert_events_contiguous(database)


def test_nothing_is_accepted_where_the_database_is_away(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    given = producer(Database(AWAY), stream, redis_url)
    with pytest.raises(ServerAway):
        given.enqueue(raw("x"))
    assert stream.waiting() == {"fast": 0, "bulk": 0}


def test_a_pending_row_of_another_time_is_embedded_by_the_model_that_serves(
    database: Database, stream: IngestStream, redis_url: str
) -> None:
    producer(database, stream, redis_url).enqueue(raw("long ago", uid="old"))
    with database.write() as connection:
        connection.execute(update(memories).values(model_fingerprint="another@1/8d/float32/unit"))
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).counts().pending == 0
