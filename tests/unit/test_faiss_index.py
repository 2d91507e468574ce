"""The door to FAISS: what it keeps, what it refuses, and in which order it answers."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from memory.errors import IndexRefused
from memory.faiss_index import FAISSIndex

DIM = 8
Vectors = npt.NDArray[np.float32]


def unit_rows(n: int, *, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def index_of(n: int) -> tuple[FAISSIndex, Vectors]:
    """Return an index with the ids 1 to n, and its rows."""
    rows = unit_rows(n)
    index = FAISSIndex(DIM)
    index.add_embeddings(rows, range(1, n + 1))
    return index, rows


@pytest.mark.parametrize("ids", [[3, 3], [1, 2, 1]])
def test_the_same_id_twice_in_one_call_is_refused_and_changes_nothing(ids: list[int]) -> None:
    index, rows = index_of(2)
    with pytest.raises(ValueError, match="the same id twice"):
        index.add_embeddings(unit_rows(len(ids), seed=1), ids)
    assert index.vectors([1, 2]).tobytes() == rows.tobytes()
    assert len(index) == 2


@pytest.mark.parametrize("shape", [(2, DIM), (1, DIM + 1), (1, DIM - 1), (DIM,), (0, DIM)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    index, _ = index_of(2)
    with pytest.raises(ValueError, match=r"have shape .* expected \(1, 8\)"):
        index.add_embeddings(np.ones(shape, dtype=np.float32), [9])
    assert len(index) == 2


def test_adding_nothing_changes_nothing() -> None:
    index, _ = index_of(2)
    index.add_embeddings(np.empty((0, DIM), dtype=np.float32), [])
    assert index.ids().tolist() == [1, 2]


@pytest.mark.parametrize("ids", [[2, 7], [3, 4], [1, 2], [4, 5], [3, 1]], ids=str)
def test_an_id_that_is_there_is_replaced(ids: list[int]) -> None:
    index, rows = index_of(3)
    new = unit_rows(2, seed=1)
    index.add_embeddings(new, ids)
    expected = dict(zip([1, 2, 3, *ids], [*rows, *new], strict=True))
    assert index.ids().tolist() == sorted(expected)
    assert index.vectors(list(expected)).tobytes() == b"".join(row.tobytes() for row in expected.values())


def test_removing_says_how_many_were_there() -> None:
    index, _ = index_of(5)
    assert index.remove([2, 4, 99, 2]) == 2
    assert index.remove([2]) == 0
    assert index.remove([]) == 0
    assert index.ids().tolist() == [1, 3, 5]


def test_a_cleared_index_is_empty_and_can_be_filled_again() -> None:
    index, rows = index_of(5)
    index.clear()
    assert len(index) == 0
    assert index.search(rows[0], k=3) == []
    index.add_embeddings(rows[:2], [4, 1])
    assert index.search(rows[0], k=3)[0][0] == 4


@pytest.mark.parametrize("n", [0, 1, 3])
def test_asking_for_more_than_there_are_gives_all_of_them(n: int) -> None:
    index, _ = index_of(n)
    assert len(index.search(unit_rows(1, seed=1)[0], k=1000)) == n


@pytest.mark.parametrize("n", [0, 5])
def test_a_search_among_none_finds_none(n: int) -> None:
    index, _ = index_of(n)
    assert index.search(unit_rows(1)[0], k=3, among=np.empty(0, dtype=np.int64)) == []


@pytest.mark.parametrize("among", [None, np.arange(5, 13), np.arange(5, 100)], ids=["all", "few", "many"])
def test_equal_scores_are_ordered_by_id(among: npt.NDArray[np.int64] | None) -> None:
    index = FAISSIndex(DIM)
    ids = np.arange(99, 0, -1)
    index.add_embeddings(np.repeat(unit_rows(1), 99, axis=0), ids)
    found = [memory_id for memory_id, _ in index.search(unit_rows(1)[0], k=99, among=among)]
    assert found == (sorted(ids) if among is None else among.tolist())


def test_the_nearest_comes_first_and_none_is_below_the_least_score() -> None:
    index = FAISSIndex(2)
    index.add_embeddings(np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32), [1, 2, 3, 4])
    query = np.array([1, 0], dtype=np.float32)
    assert [i for i, _ in index.search(query, k=4)] == [1, 4, 2, 3]
    assert [i for i, _ in index.search(query, k=4, min_score=0.5)] == [1, 4]
    assert [i for i, _ in index.search(query, k=4, min_score=0)] == [1, 4, 2]


@pytest.mark.parametrize("k", [1, 7, 150])
@pytest.mark.parametrize("n_among", [1, 8, 100, 199, 200, 201, 1000, 1999, 2000, None])
def test_a_search_among_any_share_finds_what_comparing_with_each_of_them_finds(
    k: int, n_among: int | None
) -> None:
    index, rows = index_of(2000)
    query = unit_rows(1, seed=1)[0]
    order = np.random.default_rng(2).permutation(2000)
    among = None if n_among is None else np.sort(order[:n_among] + 1)
    candidates = np.arange(1, 2001) if among is None else among
    best = candidates[np.argsort(-(rows @ query)[candidates - 1])][:k]
    assert [i for i, _ in index.search(query, k=k, among=among)] == best.tolist()


def test_the_vectors_of_no_ids_are_an_empty_matrix() -> None:
    index, _ = index_of(2)
    assert index.vectors([]).shape == (0, DIM)


@pytest.mark.parametrize("n", [0, 1, 20])
def test_an_index_comes_back_from_its_file_as_it_was_and_can_be_changed(tmp_path: Path, n: int) -> None:
    index, rows = index_of(n)
    index.save(tmp_path / "vectors.faiss")
    back = FAISSIndex.load(tmp_path / "vectors.faiss")
    assert (back.dim, len(back), back.ids().tolist()) == (DIM, n, list(range(1, n + 1)))
    assert back.vectors(back.ids()).tobytes() == rows.tobytes()
    new = unit_rows(2, seed=1)
    back.add_embeddings(new, [1, 50])
    assert back.remove([2]) == (1 if n > 1 else 0)
    assert back.vectors([50, 1]).tobytes() == new[::-1].tobytes()
    assert back.search(new[0], k=1)[0][0] == 1


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    index, _ = index_of(5)
    path = tmp_path / "vectors.faiss"
    index.save(path)
    whole = path.read_bytes()
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(IndexRefused, match=r"vectors\.faiss: "):
            FAISSIndex.load(path)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexRefused, match=r"vectors\.faiss: "):
        FAISSIndex.load(tmp_path / "vectors.faiss")


def test_a_file_with_another_kind_of_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    faiss.write_index(faiss.IndexFlatIP(DIM), str(path))
    with pytest.raises(IndexRefused, match="holds a IndexFlat"):
        FAISSIndex.load(path)
