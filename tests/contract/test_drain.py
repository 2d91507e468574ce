"""The drain on a real stream: acknowledged last, poison alone, nothing given up for an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import redis

from memory.broker import Nudger, make_celery
from memory.database import Database
from memory.errors import QueueFull
from memory.ingestion import Ingestion
from memory.messages import RawMemory, to_envelope
from memory.settings import read_settings
from memory.store.dead_letters import DeadLetters
from memory.store.memories import MemoryStore
from memory.stream import IngestStream, Lane
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_one_row_a_key
from tests.making import raw
from workers.embed import Drain

AWAY = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


class BrokenModel(WordEmbedder):
    """Fails on every text."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        message = "out of order"
        raise RuntimeError(message)


class Worker:
    """A drain of real parts."""

    def __init__(self, stream: IngestStream, database: Database, redis_url: str, **given: Any) -> None:
        settings = read_settings(redis_url=redis_url, **{"embed_batch": 64, **given.get("settings", {})})
        store = given.get("store") or MemoryStore(given.get("store_in", database))
        self.embedder: WordEmbedder = given.get("embedder", WordEmbedder())
        self.drain = Drain(
            consumer=given.get("name", "embed-1"),
            settings=settings,
            stream=stream,
            ingestion=Ingestion(store=store, embedder=self.embedder),
            dead_letters=DeadLetters(database),
            nudger=Nudger(make_celery(settings), stream),
            on_progress=lambda: None,
            should_stop=given.get("should_stop", lambda: False),
        )


class ByPasses(WordEmbedder):
    """Passes eight texts at a time through the model, and says so after each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.on_pass: Callable[[], None] = lambda: None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        passes = [super().encode([])]
        for start in range(0, len(texts), 8):
            passes.append(super().encode(texts[start : start + 8]))
            self.on_pass()
        return np.concatenate(passes)


def push(stream: IngestStream, *contents: str, lane: Lane = "bulk") -> None:
    stream.push([to_envelope(raw(content, uid=content[:100])) for content in contents], lane=lane)


def contents(database: Database) -> list[str]:
    store = MemoryStore(database)
    return [store.get(i).content for i in range(1, store.counts().stored + 1)]


def test_what_waits_is_stored_and_acknowledged(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(200)))
    assert Worker(stream, database, redis_url).drain.run() == 200
    assert MemoryStore(database).counts().stored == 200
    assert stream.waiting() == {"fast": 0, "bulk": 0}
    assert stream.n_unacknowledged() == 0
    assert_events_contiguous(database)


def test_f20_the_fast_lane_is_stored_first(stream: IngestStream, database: Database, redis_url: str) -> None:
    push(stream, *(f"import {i}" for i in range(100)))
    push(stream, "a chat turn", lane="fast")
    Worker(stream, database, redis_url).drain.run()
    assert "a chat turn" in contents(database)[:64]


def test_f20_no_single_memory_waits_for_what_a_killed_worker_left(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"import {i}" for i in range(100)))
    stream.read_new("embed-1", count=100)  # and then it was killed
    push(stream, "a chat turn", lane="fast")
    Worker(stream, database, redis_url, name="embed-1").drain.run()
    assert contents(database)[0] == "a chat turn"
    assert MemoryStore(database).counts().stored == 101


def test_f20_a_single_memory_passes_a_bulk_batch_between_two_passes(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"import {i}" for i in range(60)), "a cursed import")
    embedder = ByPasses()
    worker = Worker(stream, database, redis_url, embedder=embedder)

    def after_a_pass() -> None:
        if embedder.n_texts == 24:
            push(stream, "a chat turn", lane="fast")
            stream.push([b"{ no memory"], lane="fast")
        worker.drain.between_passes()

    embedder.on_pass = after_a_pass
    assert worker.drain.run() == 61
    assert contents(database)[0] == "a chat turn"
    assert MemoryStore(database).counts().stored == 62
    assert DeadLetters(database).count() == 1
    assert stream.n_unacknowledged() == 0


def test_f17_a_worker_told_to_stop_leaves_a_long_batch_between_two_passes(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"import {i}" for i in range(60)))
    embedder = ByPasses()
    worker = Worker(
        stream, database, redis_url, embedder=embedder, should_stop=lambda: embedder.n_texts >= 16
    )
    embedder.on_pass = worker.drain.between_passes
    worker.drain.run()
    assert embedder.n_texts == 16
    pending = stream.pending(consumer="embed-1", min_idle_s=0, count=100)
    assert {p.n_deliveries for p in pending} == {0}
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).counts().stored == 60


class WaitingStore(MemoryStore):
    """Commits the first batch only when the second one is being embedded."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.second_is_embedded = threading.Event()

    def insert(self, *args: Any, **options: Any) -> Any:
        assert self.second_is_embedded.wait(timeout=30)
        return super().insert(*args, **options)


def test_the_next_batch_is_embedded_while_the_last_one_is_committed(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    store = WaitingStore(database)

    class Second(WordEmbedder):
        def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if "memory 100" in texts:
                store.second_is_embedded.set()
            return super().encode(texts)

    push(stream, *(f"memory {i}" for i in range(120)))
    worker = Worker(stream, database, redis_url, embedder=Second(), store=store)
    assert worker.drain.run() == 120
    assert MemoryStore(database).counts().stored == 120
    assert stream.n_unacknowledged() == 0
    assert_events_contiguous(database)


class NoRoomFor(MemoryStore):
    """A database that refuses one memory, when all are embedded and about to be committed."""

    def insert(self, raws: Sequence[RawMemory], *args: Any, **options: Any) -> Any:
        if any(raw.content == "a curse" for raw in raws):
            message = "this memory breaks the database"
            raise ValueError(message)
        return super().insert(raws, *args, **options)


@pytest.mark.parametrize("n_after", [0, 100])
def test_f14_what_cannot_be_committed_stands_alone_in_the_dead_letters(
    stream: IngestStream, database: Database, redis_url: str, n_after: int
) -> None:
    push(stream, *(f"memory {i}" for i in range(30)), "a curse", *(f"later {i}" for i in range(n_after)))
    assert Worker(stream, database, redis_url, store=NoRoomFor(database)).drain.run() == 31 + n_after
    assert MemoryStore(database).counts().stored == 30 + n_after
    [letter] = DeadLetters(database).list(limit=10)
    assert (letter.uid, letter.reason) == ("a curse", "ValueError: this memory breaks the database")
    assert stream.n_unacknowledged() == 0


def test_a_restarted_worker_takes_up_at_once_what_it_had_in_hand(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(50)))
    stream.read_new("embed-1", count=40)  # and then it was killed
    Worker(stream, database, redis_url, name="embed-1").drain.run()
    assert MemoryStore(database).counts().stored == 50
    assert stream.n_unacknowledged() == 0


def test_another_worker_takes_over_only_what_was_left_long_ago(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(10)))
    stream.read_new("embed-1", count=10)
    Worker(stream, database, redis_url, name="embed-2").drain.run()
    assert MemoryStore(database).counts().stored == 0
    connection = redis.Redis.from_url(redis_url)
    for stream_id, *_ in connection.xrange("mem:in:bulk"):
        connection.xclaim("mem:in:bulk", "embed", "embed-1", 0, [stream_id], idle=61_000, justid=True)
    Worker(stream, database, redis_url, name="embed-2").drain.run()
    assert MemoryStore(database).counts().stored == 10


def test_a_long_batch_is_kept_from_other_workers(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, "slow one")
    settings = {"reclaim_after_s": 1}
    other = Worker(stream, database, redis_url, name="embed-2", settings=settings)

    class Slow(WordEmbedder):
        def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            for _ in range(3):
                connection.xclaim("mem:in:bulk", "embed", "embed-1", 0, ids, idle=900, justid=True)
                worker.drain._batches._kept_at = -1e9
                worker.drain.between_passes()
                connection.xclaim("mem:in:bulk", "embed", "nobody", 300, ids, justid=True)
                assert other.drain.run() == 0
            return super().encode(texts)

    connection = redis.Redis.from_url(redis_url)
    ids = [stream_id for stream_id, *_ in connection.xrange("mem:in:bulk")]
    worker = Worker(stream, database, redis_url, embedder=Slow(), settings=settings)
    assert worker.drain.run() == 1


def test_f06_a_database_outage_counts_against_no_memory(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(20)))
    away = Database(AWAY)
    worker = Worker(stream, database, redis_url, store_in=away)
    for _ in range(12):
        worker.drain.run()
    pending = stream.pending(consumer="embed-1", min_idle_s=0, count=100)
    assert {p.n_deliveries for p in pending} == {0}
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).counts().stored == 20
    assert DeadLetters(database).count() == 0


def test_f15_a_broken_model_counts_against_no_memory(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(20)))
    worker = Worker(stream, database, redis_url, embedder=BrokenModel())
    for _ in range(8):
        worker.drain.run()
    assert DeadLetters(database).count() == 0
    Worker(stream, database, redis_url).drain.run()
    assert MemoryStore(database).counts().stored == 20


def test_f14_a_text_that_breaks_the_model_stands_alone_in_the_dead_letters(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(30)), "a curse", *(f"later {i}" for i in range(30)))
    Worker(stream, database, redis_url, embedder=WordEmbedder(poison="curse")).drain.run()
    assert MemoryStore(database).counts().stored == 60
    [letter] = DeadLetters(database).list(limit=10)
    assert (letter.uid, letter.reason) == ("a curse", "RuntimeError: this text breaks the model")
    assert stream.n_unacknowledged() == 0


def test_f14_a_memory_that_kills_its_worker_is_given_up_and_its_neighbours_are_not(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(60)), "the killer")

    class Killer(WordEmbedder):
        def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if "the killer" in texts:
                raise KeyboardInterrupt  # ends the process past every handler
            return super().encode(texts)

    for _ in range(20):
        try:
            Worker(stream, database, redis_url, embedder=Killer()).drain.run()
        except KeyboardInterrupt:
            continue
        break
    assert MemoryStore(database).counts().stored == 60
    [letter] = DeadLetters(database).list(limit=10)
    assert letter.uid == "the killer"
    assert letter.reason.startswith("delivered 5 times, and each time the worker died")


def test_a_redelivery_after_the_commit_changes_nothing(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(10)))
    entries = stream.read_new("embed-1", count=10)
    worker = Worker(stream, database, redis_url)
    worker.drain._batches.finish(entries)
    push(stream, *(f"memory {i}" for i in range(10)))
    worker.drain.run()
    assert worker.embedder.n_texts == 10
    assert MemoryStore(database).counts().stored == 10
    assert_one_row_a_key(database)


def test_f05_an_emptied_redis_is_used_again(stream: IngestStream, database: Database, redis_url: str) -> None:
    worker = Worker(stream, database, redis_url)
    worker.drain.run()
    redis.Redis.from_url(redis_url).flushall()
    push(stream, "after the flood")
    assert worker.drain.run() == 1
    assert contents(database) == ["after the flood"]


def test_a_full_lane_refuses_all_or_nothing(stream: IngestStream, redis_url: str) -> None:
    small = IngestStream(redis_url, max_waiting=10)
    push(small, *(f"memory {i}" for i in range(8)))
    with pytest.raises(QueueFull, match="bulk lane is full: 8 memories wait") as caught:
        push(small, "one", "two", "three")
    assert caught.value.retry_after_s > 0
    assert small.waiting() == {"fast": 0, "bulk": 8}
    push(small, "urgent", lane="fast")


def test_f04_redis_is_never_filled_so_far_that_it_could_not_be_emptied(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    connection = redis.Redis.from_url(redis_url)
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] + 8 * 2**20)
    try:
        with pytest.raises(QueueFull, match="70 %"):  # noqa: PT012 (which of the pushes is refused is Redis's to say)
            for n in range(10_000):
                push(stream, *(f"{n} {i} " + "x" * 2000 for i in range(50)))
        n_waiting = stream.waiting()["bulk"]
        worker = Worker(stream, database, redis_url)
        while stream.waiting()["bulk"]:
            worker.drain.run()
        assert MemoryStore(database).counts().stored == n_waiting
    finally:
        connection.config_set("maxmemory", 0)


def test_f20_a_single_memory_is_never_read_together_with_bulk_ones(stream: IngestStream) -> None:
    push(stream, *(f"import {i}" for i in range(3)))
    push(stream, "a chat turn", lane="fast")
    assert [entry.lane for entry in stream.read_new("embed-1", count=100)] == ["fast"]
    assert [entry.lane for entry in stream.read_new("embed-1", count=100)] == ["bulk"] * 3
    assert stream.read_new("embed-1", count=100) == []
