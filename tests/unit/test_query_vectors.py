"""A query that was asked lately is not embedded again; another model's vector is never taken for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from indexer.app import QueryModel
from indexer.query_vectors import QueryVectors
from memory.errors import ModelMismatch
from memory.models import Identity
from tests.fakes import WordEmbedder

OWN = Identity(lineage="a", model_fingerprint=WordEmbedder.fingerprint, dim=WordEmbedder.embedding_dim)


def vector(value: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(3, value, dtype=np.float32)


def test_the_query_not_asked_for_longest_goes_first() -> None:
    known = QueryVectors(capacity=2)
    known.put("m", "a", vector(1))
    known.put("m", "b", vector(2))
    assert known.get("m", "a") is not None
    known.put("m", "c", vector(3))
    assert known.get("m", "b") is None
    assert [known.get("m", query)[0] for query in ("a", "c")] == [1, 3]  # type: ignore[index]
    assert len(known) == 2


def test_each_model_has_its_own_vectors_and_none_can_be_written_to() -> None:
    known = QueryVectors()
    known.put("m", "a", vector(1))
    assert known.get("n", "a") is None
    found = known.get("m", "a")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 5


def test_threads_may_share_it() -> None:
    known = QueryVectors(capacity=50)

    def work(thread: int) -> None:
        for n in range(500):
            value = (n * (thread + 1)) % 80
            found = known.get("m", str(value))
            assert found is None or found[0] == value
            known.put("m", str(value), vector(value))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(known) == 50


def test_a_query_is_embedded_once() -> None:
    embedder = WordEmbedder()
    model = QueryModel(lambda: embedder)
    first = model.embed("a red kite", of=OWN)
    n_texts = embedder.n_texts
    assert (model.embed("a red kite", of=OWN) == first).all()
    assert embedder.n_texts == n_texts
    model.embed("a blue kite", of=OWN)
    assert embedder.n_texts == n_texts + 1


def test_a_known_query_is_refused_too_once_the_index_is_another_models() -> None:
    model = QueryModel(WordEmbedder)
    model.embed("a red kite", of=OWN)
    other = Identity(lineage="a", model_fingerprint="another@1", dim=OWN.dim)
    with pytest.raises(ModelMismatch):
        model.embed("a red kite", of=other)
