"""F15: a GPU without memory for a batch gets smaller ones; without memory for one text, everything waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from memory.database import Database
from memory.embedding import EmbeddingModel
from memory.engines.passes import Passes
from memory.errors import ServerAway
from memory.store.dead_letters import DeadLetters
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from tests.contract.test_drain import Worker, push
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_one_row_a_key

pytestmark = pytest.mark.faults

TEXTS = [f"Text number {i}: {'and so on, ' * (i % 7)}" for i in range(12)]
_OOM = "CUDA out of memory. Tried to allocate 20.00 MiB."


class SmallGpu:
    """An engine on a GPU that has memory for so many texts at once; the rest of it is real."""

    def __init__(self, engine: Any, *, room: int) -> None:
        self._engine = engine
        self.room = room
        self.tried: list[int] = []

    def run(self, rows: list[Any]) -> Any:
        self.tried.append(len(rows))
        if len(rows) > self.room:
            raise torch.cuda.OutOfMemoryError(_OOM)
        return self._engine.run(rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class SmallWords(WordEmbedder):
    """The same, of a model that does not know how to help itself."""

    room = 1

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if len(texts) > self.room:
            raise torch.cuda.OutOfMemoryError(_OOM)
        return super().encode(texts)


class FullGpu(WordEmbedder):
    """What `EmbeddingModel` does where nothing fits any more."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        message = f"the GPU has no memory left for one text: {_OOM}"
        raise ServerAway(message)


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return EmbeddingModel(engine="torch")


@pytest.mark.parametrize("room", [1, 5])
def test_f15_a_pass_that_is_too_large_is_halved_until_it_fits_and_gives_the_same_vectors(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    expected = model.encode(TEXTS)
    gpu, done = SmallGpu(model.engine, room=room), []
    monkeypatch.setattr(model, "_passes", Passes(gpu))
    monkeypatch.setattr(model, "on_pass", lambda: done.append(1))
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    assert max(gpu.tried) > room
    assert len(done) == sum(n <= room for n in gpu.tried)
    assert sum(n for n in gpu.tried if n <= room) == len(TEXTS)


def test_f15_a_gpu_without_memory_for_one_text_is_away_and_comes_back(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SmallGpu(model.engine, room=0)
    monkeypatch.setattr(model, "_passes", Passes(gpu))
    with pytest.raises(ServerAway, match="no memory left for one text"):
        model.encode(TEXTS)
    gpu.room = 100
    assert len(model.encode(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("room", [1, 5])
def test_f15_a_batch_that_no_model_takes_whole_is_halved_and_all_of_it_is_stored(
    stream: IngestStream, database: Database, redis_url: str, room: int
) -> None:
    push(stream, *(f"memory {i}" for i in range(50)))
    embedder = SmallWords()
    embedder.room = room
    Worker(stream, database, redis_url, embedder=embedder).drain.run()
    assert_all_stored(stream, database)


def test_f15_while_the_gpu_takes_no_text_at_all_everything_waits_and_nothing_is_given_up(
    stream: IngestStream, database: Database, redis_url: str
) -> None:
    push(stream, *(f"memory {i}" for i in range(50)))
    another = SmallWords()  # of another maker: what it raises is not translated
    another.room = 0
    for embedder in (FullGpu(), another):
        worker = Worker(stream, database, redis_url, embedder=embedder)
        for _ in range(8):
            worker.drain.run()
        pending = stream.pending(consumer="embed-1", min_idle_s=0, count=100)
        assert {p.n_deliveries for p in pending} == {0}
        assert sum(stream.waiting().values()) == stream.n_unacknowledged() == 50
        assert MemoryStore(database).counts().stored == 0
    Worker(stream, database, redis_url).drain.run()
    assert_all_stored(stream, database)


def assert_all_stored(stream: IngestStream, database: Database) -> None:
    assert MemoryStore(database).counts().stored == 50
    assert DeadLetters(database).count() == sum(stream.waiting().values()) == 0
    assert_events_contiguous(database)
    assert_one_row_a_key(database)
