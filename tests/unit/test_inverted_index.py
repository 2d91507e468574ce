"""The index for many vectors: nearly exact however it is filtered, changed in place, never half a file."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from memory.errors import IndexRefused
from memory.faiss_index import FAISSIndex, sample_size
from memory.id_bits import IdBits

DIM = 16
Vectors = npt.NDArray[np.float32]


def like_texts(n: int, *, seed: int = 0, dim: int = DIM) -> Vectors:
    """Unit rows in a few hundred bunches, as the embeddings of texts are."""
    middles = np.random.default_rng(99).normal(size=(300, dim))
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(0, 300, size=n)] + rng.normal(size=(n, dim)) * 0.4
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def inverted_of(n: int, *, n_for: int | None = None) -> tuple[FAISSIndex, Vectors]:
    """Return an inverted index with the ids 1 to n, and its rows."""
    rows = like_texts(n)
    index = FAISSIndex.inverted(like_texts(sample_size(n_for or n), seed=5), n=n_for or n)
    index.add_embeddings(rows, range(1, n + 1))
    return index, rows


@pytest.fixture(scope="module")
def large() -> tuple[FAISSIndex, Vectors]:
    return inverted_of(20_000)


def exact(rows: Vectors, query: Vectors, among: npt.NDArray[np.int64], k: int) -> list[int]:
    return among[np.argsort(-(rows[among - 1] @ query))[:k]].tolist()


@pytest.mark.parametrize("share", [1, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("kind", ["ids", "bits"])
def test_the_nearest_are_found_whatever_share_of_the_index_is_searched(
    large: tuple[FAISSIndex, Vectors], share: float, kind: str
) -> None:
    index, rows = large
    among = np.flatnonzero(np.random.default_rng(1).random(len(rows)) < share) + 1
    n_found = 0
    for query in like_texts(50, seed=2):
        found = index.search(query, 30, -1.0, among=among if kind == "ids" else IdBits(among))
        assert {i for i, _ in found} <= set(among.tolist())
        assert len(found) == min(30, len(among))
        n_found += len(set(exact(rows, query, among, 10)) & {i for i, _ in found})
    assert n_found >= 0.99 * 50 * min(10, len(among))


def test_scores_are_off_the_cosine_by_no_more_than_the_slack(large: tuple[FAISSIndex, Vectors]) -> None:
    index, rows = large
    assert 0 < index.slack < 0.02
    for query in like_texts(20, seed=3):
        for memory_id, score in index.search(query, 100, -1.0):
            assert abs(score - rows[memory_id - 1] @ query) <= index.slack


@pytest.mark.parametrize("k", [1, 500, 19_999, 20_000, 30_000])
def test_as_many_come_back_as_are_asked_for(large: tuple[FAISSIndex, Vectors], k: int) -> None:
    index, rows = large
    assert len(index.search(rows[0], k, -1.0)) == min(k, 20_000)
    among = np.arange(1, 20_000, 7)
    assert len(index.search(rows[0], k, -1.0, among=among)) == min(k, len(among))


def test_of_equal_vectors_the_lowest_ids_are_found() -> None:
    index, _ = inverted_of(3000)
    twins = np.repeat(like_texts(1, seed=7), 500, axis=0)
    index.add_embeddings(twins, np.arange(9499, 8999, -1))
    assert [i for i, _ in index.search(twins[0], 5)] == [9000, 9001, 9002, 9003, 9004]


def test_an_id_that_is_there_is_replaced() -> None:
    index, rows = inverted_of(3000)
    new = like_texts(100, seed=8)
    ids = np.arange(50, 150)
    index.add_embeddings(new, ids)
    rows[ids - 1] = new
    assert len(index) == 3000
    assert index.agree(index.ids(), rows).all()
    assert index.ids().tolist() == list(range(1, 3001))


def test_what_is_removed_is_found_no_more_and_said_to_have_been_there() -> None:
    index, rows = inverted_of(3000)
    assert index.remove([5, 9, 5, 99_999]) == 2
    assert index.remove([5, 9]) == 0
    assert index.remove([]) == 0
    assert index.search(rows[4], 1)[0][0] != 5
    assert 5 not in index.ids()
    assert len(index) == 2998


def test_emptied_it_can_be_searched_and_filled_again() -> None:
    index, rows = inverted_of(500)
    assert index.remove(index.ids()) == 500
    assert index.search(rows[0]) == []
    index.add_embeddings(rows[:3], [7, 8, 9])
    assert index.search(rows[1], 1)[0][0] == 8


def test_the_lists_may_be_chosen_beforehand() -> None:
    index, _ = inverted_of(500)
    other, _ = inverted_of(500)
    new = like_texts(50, seed=9)
    index.add_embeddings(new, range(1000, 1050), lists=index.lists(new))
    other.add_embeddings(new, range(1000, 1050))
    for query in like_texts(10, seed=4):
        assert index.search(query, 20) == other.search(query, 20)
    assert FAISSIndex(DIM).lists(new) is None


def test_a_vector_is_the_same_as_its_embedding_only_as_long_as_no_byte_of_it_changes() -> None:
    index, rows = inverted_of(500)
    assert index.agree(range(1, 501), rows).all()
    assert index.agree([], rows[:0]).tolist() == []
    moved = rows.copy()
    moved[3], moved[7] = rows[7], rows[3]
    assert np.flatnonzero(~index.agree(range(1, 501), moved)).tolist() == [3, 7]
    place = index._form.written.direct_map.get(10)  # type: ignore[attr-defined]
    lists = index._form.written.invlists
    code = faiss.rev_swig_ptr(lists.get_single_code(place >> 32, place & 0xFFFFFFFF), DIM)
    code[2] ^= 4
    assert np.flatnonzero(~index.agree(range(1, 501), rows)).tolist() == [9]


def test_a_vector_in_a_list_far_away_is_not_the_same() -> None:
    index, rows = inverted_of(500)
    near = index.lists(rows[:1])
    assert near is not None
    index.add_embeddings(rows[:1], [900], lists=(near + 1) % 8)
    assert index.agree([1, 900], np.repeat(rows[:1], 2, axis=0)).tolist() == [True, False]


def test_vectors_far_beyond_the_sample_are_found_by_themselves() -> None:
    sample = np.zeros((200, DIM), dtype=np.float32)
    sample[:, 0] = 1
    index = FAISSIndex.inverted(sample, n=200)
    index.add_embeddings(np.eye(DIM, dtype=np.float32), range(DIM))
    assert [index.search(row, 1)[0][0] for row in np.eye(DIM, dtype=np.float32)] == list(range(DIM))


@pytest.mark.parametrize(
    ("n", "n_for", "outgrown"), [(100, 100, False), (600, 600, False), (600, 40, True), (400, 40, False)]
)
def test_it_is_outgrown_by_four_times_what_it_was_made_for(n: int, n_for: int, outgrown: bool) -> None:
    assert inverted_of(n, n_for=n_for)[0].outgrown(exact_up_to=500) is outgrown


def test_the_exact_form_is_outgrown_beyond_its_bound() -> None:
    index = FAISSIndex(DIM)
    index.add_embeddings(like_texts(500), range(500))
    assert not index.outgrown(exact_up_to=500)
    index.add_embeddings(like_texts(1), [500])
    assert index.outgrown(exact_up_to=500)
    assert not index.outgrown()


def test_it_comes_back_from_its_file_as_it_was_and_can_be_changed(tmp_path: Path) -> None:
    index, rows = inverted_of(3000)
    index.remove([17])
    index.save(tmp_path / "vectors.faiss")
    back = FAISSIndex.load(tmp_path / "vectors.faiss")
    assert (back.dim, len(back), back.slack) == (DIM, 2999, index.slack)
    for query in like_texts(20, seed=4):
        assert back.search(query, 20, -1.0) == index.search(query, 20, -1.0)
    assert back.vectors(back.ids()).tobytes() == index.vectors(index.ids()).tobytes()
    assert back.remove([18, 17]) == 1
    back.add_embeddings(rows[:2], [3, 4000])
    assert back.agree([3, 4000, 5], rows[[0, 1, 4]]).all()


def test_a_cleared_one_is_exact_again() -> None:
    index, rows = inverted_of(500)
    index.clear()
    index.add_embeddings(rows[:2], [1, 2])
    assert (len(index), index.slack) == (2, 0)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    inverted_of(60)[0].save(path)
    whole = path.read_bytes()
    for n_bytes in range(0, len(whole), 7):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(IndexRefused, match=r"vectors\.faiss: "):
            FAISSIndex.load(path)


def test_a_file_with_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    index, rows = inverted_of(60)
    index._form.add(rows[:1], np.array([7]), lists=None)
    faiss.write_index(index._form.written, str(path))
    with pytest.raises(IndexRefused, match="an id twice"):
        FAISSIndex.load(path)


@pytest.mark.parametrize("kind", ["IVF4,SQ8", "IVF4,Flat", "IVF4,SQfp16"])
@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT])
def test_a_file_with_another_kind_of_lists_is_refused(tmp_path: Path, kind: str, metric: int) -> None:
    other = faiss.index_factory(DIM, kind, metric)
    other.train(like_texts(200))
    if (kind, metric) == ("IVF4,SQ8", faiss.METRIC_INNER_PRODUCT):
        faiss.downcast_index(other).by_residual = False
    faiss.write_index(other, str(tmp_path / "vectors.faiss"))
    with pytest.raises(IndexRefused, match=r"holds a Index\w+ that is none of ours"):
        FAISSIndex.load(tmp_path / "vectors.faiss")


@pytest.mark.parametrize("sample", [np.zeros((0, DIM)), np.zeros((3, DIM)), np.full((3, DIM), np.nan)])
def test_without_a_good_sample_none_is_made(sample: Vectors) -> None:
    with pytest.raises(ValueError, match="sample: "):
        FAISSIndex.inverted(sample, n=3)


def test_on_a_gpu_every_search_runs_on_the_cpu(tmp_path: Path) -> None:
    def refuse(_: faiss.Index) -> faiss.Index:
        raise AssertionError

    index = FAISSIndex.inverted(like_texts(200), n=200, use_gpu=True, upload=refuse)
    index.add_embeddings(like_texts(200), range(200))
    assert index.search(like_texts(200)[3], 1)[0][0] == 3
    index.save(tmp_path / "f")
    assert (
        FAISSIndex.load(tmp_path / "f", use_gpu=True, upload=refuse).search(like_texts(200)[3], 1)[0][0] == 3
    )
