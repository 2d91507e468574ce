"""The index behaves like a plain mapping of id to vector, searched by comparing with every one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memory.faiss_index import FAISSIndex, sample_size
from memory.id_bits import IdBits

DIM = 4
TOLERANCE = 1e-5  # float32 sums differ by their order
ids = st.integers(0, 120)
seeds = st.integers(0, 2**32 - 1)
Vectors = npt.NDArray[np.float32]


def unit_rows(n: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class IndexMachine(RuleBasedStateMachine):
    def __init__(self, *, use_gpu: bool) -> None:
        super().__init__()
        self._use_gpu = use_gpu  # a copy in memory stands for the one on the GPU
        self.index = FAISSIndex(DIM, use_gpu=use_gpu, upload=faiss.clone_index)
        self.model: dict[int, Vectors] = {}

    @rule(new=st.lists(ids, unique=True, max_size=80), seed=seeds)
    def add_or_replace(self, new: list[int], seed: int) -> None:
        rows = unit_rows(len(new), seed)
        self.index.add_embeddings(rows, new)
        self.model.update(zip(new, rows, strict=True))

    @rule(gone=st.lists(ids, max_size=10))
    def remove(self, gone: list[int]) -> None:
        assert self.index.remove(gone) == len(set(gone) & set(self.model))
        for memory_id in gone:
            self.model.pop(memory_id, None)

    @rule()
    def clear(self) -> None:
        self.index.clear()
        self.model.clear()

    @rule(seed=seeds, k=st.integers(1, 150), min_score=st.sampled_from([-1.0, 0.0, 0.5]))
    def search_all(self, seed: int, k: int, min_score: float) -> None:
        query = unit_rows(1, seed)[0]
        self._check(self.index.search(query, k=k, min_score=min_score), query, k, min_score, set(self.model))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), seed=seeds, k=st.integers(1, 20), min_score=st.sampled_from([-1.0, 0.3]))
    def search_among(self, data: st.DataObject, seed: int, k: int, min_score: float) -> None:
        few = len(self.model) // 10
        size = data.draw(st.integers(0, len(self.model)) | st.integers(0, few) | st.just(len(self.model)))
        among = np.sort(np.random.default_rng(seed).permutation(list(self.model))[:size])
        query = unit_rows(1, seed)[0]
        found = self.index.search(query, k=k, min_score=min_score, among=among)
        self._check(found, query, k, min_score, set(among.tolist()))

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.faiss"
            self.index.save(path)
            self.index = FAISSIndex.load(path, use_gpu=self._use_gpu, upload=faiss.clone_index)

    @invariant()
    def it_holds_exactly_the_vectors_it_was_given(self) -> None:
        expected = sorted(self.model)
        assert len(self.index) == len(expected)
        assert self.index.ids().tolist() == expected
        stored = self.index.vectors(expected)
        assert [row.tobytes() for row in stored] == [self.model[i].tobytes() for i in expected]

    def _check(
        self, found: list[tuple[int, float]], query: Vectors, k: int, min_score: float, among: set[int]
    ) -> None:
        scores = {i: float(self.model[i] @ query) for i in among}
        assert len({i for i, _ in found}) == len(found)
        for memory_id, score in found:
            assert abs(score - scores[memory_id]) < TOLERANCE
        best = [s for s in sorted(scores.values(), reverse=True)[:k] if s >= min_score + TOLERANCE]
        given = [s for _, s in found]
        assert given == sorted(given, reverse=True)
        np.testing.assert_allclose(given[: len(best)], best, atol=TOLERANCE)
        assert all(min_score <= s < min_score + 2 * TOLERANCE for s in given[len(best) :])


@pytest.mark.parametrize("use_gpu", [False, True], ids=["CPU", "GPU"])
def test_the_index_finds_what_comparing_with_every_vector_finds_after_anything(use_gpu: bool) -> None:
    run_state_machine_as_test(
        lambda: IndexMachine(use_gpu=use_gpu),
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
    )


class InvertedMachine(RuleBasedStateMachine):
    """The form for many, at a size at which every list can be looked at: what it finds is nearly exact.

    It holds vectors of the sample that it was trained with: of another one, a number may lie beyond the range
    that is told apart.
    """

    sample = unit_rows(sample_size(100), 1)

    def __init__(self) -> None:
        super().__init__()
        self.index = FAISSIndex.inverted(self.sample, n=100)
        self.model: dict[int, Vectors] = {}

    @rule(new=st.lists(ids, unique=True, max_size=80), seed=seeds, beforehand=st.booleans())
    def add_or_replace(self, new: list[int], seed: int, beforehand: bool) -> None:
        rows = np.random.default_rng(seed).permutation(self.sample)[: len(new)]
        self.index.add_embeddings(rows, new, lists=self.index.lists(rows) if beforehand else None)
        self.model.update(zip(new, rows, strict=True))

    @rule(gone=st.lists(ids, max_size=10))
    def remove(self, gone: list[int]) -> None:
        assert self.index.remove(gone) == len(set(gone) & set(self.model))
        for memory_id in gone:
            self.model.pop(memory_id, None)

    @rule(data=st.data(), seed=seeds, k=st.integers(1, 150), as_bits=st.booleans())
    def search(self, data: st.DataObject, seed: int, k: int, as_bits: bool) -> None:
        size = data.draw(st.integers(0, len(self.model)))
        among = np.sort(np.random.default_rng(seed).permutation(list(self.model))[:size]).astype(np.int64)
        query = unit_rows(1, seed)[0]
        found = self.index.search(query, k, -1.0, among=IdBits(among) if as_bits else among)
        assert len(found) == min(k, size)
        scores = {i: float(self.model[i] @ query) for i in among.tolist()}
        assert all(abs(score - scores[i]) <= self.index.slack + TOLERANCE for i, score in found)
        best = sorted(scores.values(), reverse=True)[: len(found)]
        np.testing.assert_allclose([s for _, s in found], best, atol=self.index.slack + TOLERANCE)

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.faiss"
            self.index.save(path)
            self.index = FAISSIndex.load(path)

    @invariant()
    def it_holds_exactly_what_it_was_given(self) -> None:
        expected = sorted(self.model)
        assert self.index.ids().tolist() == expected
        rows = np.array([self.model[i] for i in expected], dtype=np.float32).reshape(-1, DIM)
        assert self.index.agree(expected, rows).all()


def test_the_index_for_many_finds_nearly_what_comparing_finds_after_anything() -> None:
    run_state_machine_as_test(
        InvertedMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
