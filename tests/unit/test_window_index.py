"""The further windows of long memories: each found as its memory, once, whatever was added and removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.catalogue import Catalogue
from memory.embedding import unit_rows
from memory.errors import IndexRefused
from memory.faiss_index import FAISSIndex
from memory.index_replica import IndexReplica
from memory.models import MemoryId, MemoryType, SearchMode, Seq
from memory.relevance import Query, Scope
from memory.snapshot import Snapshot
from memory.window_index import Parts, WindowIndex
from memory.word_index import WordIndex
from tests.making import text_of

DIM = 8
GROUPS = [("ann", "task"), ("ann", "semantic"), ("ben", "task")]
Vectors = npt.NDArray[np.float32]


def some_vectors(n: int, *, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32))


def empty_replica(*, sample: Vectors | None = None) -> IndexReplica:
    """Return an index without memories; of the form for many where a sample is given."""

    def index() -> FAISSIndex:
        return FAISSIndex(DIM) if sample is None else FAISSIndex.inverted(sample, n=len(sample))

    content = Snapshot(
        index=index(),
        windows=WindowIndex(index()),
        catalogue=Catalogue(),
        words=WordIndex(),
        applied_seq=Seq(0),
    )
    return IndexReplica(content, model_fingerprint="model")


class Model:
    """What the index must be, as a dictionary: the windows and group of each memory."""

    def __init__(self) -> None:
        self.memories: dict[int, tuple[Vectors, tuple[str, str]]] = {}

    def best(self, query: Vectors, *, namespace: str, types: list[str] | None, k: int) -> list[float]:
        scores = [
            float((windows @ query).max())
            for windows, group in self.memories.values()
            if group[0] == namespace and (types is None or group[1] in types)
        ]
        return sorted(scores, reverse=True)[:k]


changes = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=5, unique_by=lambda m: m[0]),
        st.lists(st.integers(0, 12), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@given(changes, st.integers(1, 6), st.booleans())
def test_searches_find_what_comparing_with_every_window_finds(
    steps: list[tuple[list[tuple[int, int]], list[int]]], k: int, many: bool
) -> None:
    replica = empty_replica(sample=some_vectors(200, seed=99) if many else None)
    model = Model()
    for seq, (added, removed) in enumerate(steps, start=1):
        gone = [i for i in removed if i not in dict(added)]
        vectors = [some_vectors(n, seed=100 * seq + i) for i, n in added]
        replica.change(
            removed=[MemoryId(i) for i in gone],
            added=[MemoryId(i) for i, _ in added],
            groups=[GROUPS[i % 3] for i, _ in added],
            vectors=np.concatenate([np.empty((0, DIM), dtype=np.float32), *vectors]),
            seq=Seq(seq),
            counts=np.array([n for _, n in added], dtype=np.int64),
            texts=[text_of(i, namespace=GROUPS[i % 3][0]) for i, _ in added],
        )
        for i in gone:
            model.memories.pop(i, None)
        for (i, _), windows in zip(added, vectors, strict=True):
            model.memories[i] = (windows, GROUPS[i % 3])
    content = replica.content
    assert content.windows.owners().tolist() == sorted(
        i for i, (w, _) in model.memories.items() if len(w) > 1
    )
    assert len(content.windows) == sum(len(w) - 1 for w, _ in model.memories.values())
    [query] = some_vectors(1, seed=7)
    for namespace, types in (("ann", None), ("ann", [MemoryType.TASK]), ("ben", None), ("nobody", None)):
        scope = Scope(namespace=namespace, memory_types=types)
        found = replica.search(Query(vector=query, terms=[]), scope, mode=SearchMode.VECTOR, k=k)
        expected = model.best(query, namespace=namespace, types=types and [t.value for t in types], k=k)
        assert found.scores.tolist() == pytest.approx(expected, abs=0.05 if many else 1e-5)
        assert len(set(found.ids.tolist())) == len(found.ids), "each memory comes once"
    asked = [MemoryId(i) for i in range(13)]
    told: dict[int, float] = {}
    for namespace in ("ann", "ben"):
        theirs = [i for i in asked if i in model.memories and model.memories[i][1][0] == namespace]
        scored = replica.scored(
            Query(vector=query, terms=[]), namespace=namespace, ids=theirs, mode=SearchMode.VECTOR
        )
        told |= dict(zip(scored.ids.tolist(), scored.scores.tolist(), strict=True))
    assert told == pytest.approx(
        {i: float((w @ query).max()) for i, (w, _) in model.memories.items()}, abs=0.05 if many else 1e-5
    )
    ids = np.array(sorted(model.memories), dtype=np.int64)
    counts = np.array([len(model.memories[i][0]) for i in ids.tolist()], dtype=np.int64)
    windows = [model.memories[i][0] for i in ids.tolist()]
    parts = Parts.of(np.concatenate([np.empty((0, DIM), dtype=np.float32), *windows]), counts)
    assert content.windows.agree(ids, parts).all()


def long_ones(n: int, *, windows: int) -> tuple[WindowIndex, Catalogue, Parts]:
    vectors = some_vectors(n * windows)
    parts = Parts.of(vectors, np.full(n, windows, dtype=np.int64))
    catalogue, index = Catalogue(), WindowIndex(FAISSIndex(DIM))
    groups = [GROUPS[i % 3] for i in range(n)]
    catalogue.put(range(n), groups)
    index.put(range(n), groups, parts)
    return index, catalogue, parts


def test_many_windows_of_one_memory_hide_no_other() -> None:
    index, _, _ = long_ones(3, windows=2)
    [query] = some_vectors(1, seed=5)
    near = unit_rows(query + 0.01 * some_vectors(500, seed=6))
    index.put([7], [("ann", "task")], Parts.of(np.concatenate([near[:1], near]), np.array([501])))
    found = index.search(query, namespace="ann", memory_types=None, k=3, min_score=-1)
    assert found[0][0] == 7
    assert sorted(memory_id for memory_id, _ in found) == [0, 1, 7]


def test_an_index_told_otherwise_does_not_agree() -> None:
    index, _, parts = long_ones(4, windows=3)
    ids = np.arange(4)
    other = parts._replace(further=parts.further[::-1].copy())
    assert not index.agree(ids, other).any()
    fewer = Parts(parts.firsts, parts.further[:-1], np.minimum(parts.bounds, len(parts.further) - 1))
    assert index.agree(ids, fewer).tolist() == [True, True, True, False]
    index.drop([1])
    assert index.agree(ids, parts).tolist() == [True, False, True, True]


def test_what_is_saved_is_loaded_and_goes_on(tmp_path: Path) -> None:
    index, catalogue, parts = long_ones(9, windows=3)
    index.drop([0, 8])
    files = tmp_path / "windows.faiss", tmp_path / "windows.npz"
    index.save(*files)
    again = WindowIndex.load(*files, catalogue=catalogue)
    assert len(again) == 14
    assert again.agree(np.arange(1, 8), Parts.of(some_vectors(27)[3:24], np.full(7, 3))).all()
    again.put([8], [GROUPS[2]], Parts.of(some_vectors(27)[24:], np.array([3])))
    assert again.owners().tolist() == list(range(1, 9))
    again.drop(range(9))
    assert len(again) == 0
    assert again.search(parts.firsts[0], namespace="ann", memory_types=None, k=3, min_score=-1) == []


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    index, catalogue, _ = long_ones(3, windows=3)
    files = tmp_path / "windows.faiss", tmp_path / "windows.npz"
    index.save(*files)
    with pytest.raises(IndexRefused, match="do not fit"):
        WindowIndex.load(*files, catalogue=Catalogue())
    smaller, _, _ = long_ones(2, windows=3)
    smaller.save(files[0], tmp_path / "other.npz")
    with pytest.raises(IndexRefused, match="do not fit"):
        WindowIndex.load(*files, catalogue=catalogue)
    files[1].write_bytes(b"no archive")
    with pytest.raises(IndexRefused, match=r"windows\.npz"):
        WindowIndex.load(*files, catalogue=catalogue)
