"""The door to FAISS: what it keeps, what it refuses, and in which order it answers."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from memory.errors import IndexRefused, SettingsError
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
    with pytest.raises(ValueError, match=r"embeddings: shape .* expected \(1, 8\)"):
        index.add_embeddings(np.ones(shape, dtype=np.float32), [9])
    assert len(index) == 2


@pytest.mark.parametrize("length", [0, 0.99, 1.01, 1e30, np.nan, np.inf, -np.inf])
def test_a_vector_without_the_length_1_is_refused_and_changes_nothing(length: float) -> None:
    index, rows = index_of(2)
    new = unit_rows(3, seed=1)
    new[1] = [length, *[0] * (DIM - 1)]
    with pytest.raises(ValueError, match=r"embeddings: row 1 has length .*, expected 1"):
        index.add_embeddings(new, [1, 2, 3])
    assert index.vectors(index.ids()).tobytes() == rows.tobytes()


def test_the_length_may_be_off_by_rounding() -> None:
    index = FAISSIndex(DIM)
    index.add_embeddings(unit_rows(1000).astype(np.float16), range(1000))
    assert len(index) == 1000


@pytest.mark.parametrize(
    "ids", [7, "7", ["7"], [7.5], [True], [[7]], [-1], [2**64 - 1], [2**70], {7}, [None]], ids=repr
)
def test_ids_that_are_no_list_of_whole_numbers_from_0_are_refused(ids: Any) -> None:
    index, rows = index_of(2)
    for change in (lambda: index.add_embeddings(unit_rows(1), ids), lambda: index.remove(ids)):
        with pytest.raises(ValueError, match="must be a list of whole numbers from 0"):
            change()
    assert index.vectors(index.ids()).tobytes() == rows.tobytes()


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
    assert index.ids().tolist() == [1, 4]


def test_a_cleared_index_is_as_new(tmp_path: Path) -> None:
    index, _ = index_of(5)
    index.clear()
    index.save(tmp_path / "cleared")
    FAISSIndex(DIM).save(tmp_path / "new")
    assert (tmp_path / "cleared").read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_asking_for_more_than_there_are_gives_all_of_them(n: int) -> None:
    index, _ = index_of(n)
    assert len(index.search(unit_rows(1, seed=1)[0], k=1000, min_score=-1)) == n


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


@pytest.mark.parametrize("use_gpu", [False, True], ids=["CPU", "GPU"])
@pytest.mark.parametrize("k", [1, 5, 30, 98])
@pytest.mark.parametrize("among", [None, np.arange(5, 13), np.arange(5, 100)], ids=["all", "few", "many"])
def test_of_equal_scores_the_lowest_ids_are_found(
    among: npt.NDArray[np.int64] | None, k: int, use_gpu: bool
) -> None:
    index = FAISSIndex(DIM, use_gpu=use_gpu, upload=faiss.clone_index)
    index.add_embeddings(np.repeat(unit_rows(1), 99, axis=0), np.arange(99, 0, -1))
    found = [memory_id for memory_id, _ in index.search(unit_rows(1)[0], k=k, among=among)]
    assert found == list(range(1, 100) if among is None else among.tolist())[:k]


@pytest.mark.parametrize(
    "shape", [(), (DIM - 1,), (DIM + 1,), (2, DIM), (DIM, 1), (1, 1, DIM), (0,)], ids=str
)
def test_a_query_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    index, _ = index_of(2)
    with pytest.raises(ValueError, match=r"query: shape .* expected \(1, 8\)"):
        index.search(np.ones(shape, dtype=np.float32))


@pytest.mark.parametrize("length", [0, 0.99, 1.01, np.nan, np.inf])
def test_a_query_without_the_length_1_is_refused(length: float) -> None:
    index, _ = index_of(2)
    for searched in (index, FAISSIndex(DIM)):
        with pytest.raises(ValueError, match=r"query: row 0 has length .*, expected 1"):
            searched.search(np.array([length, *[0] * (DIM - 1)], dtype=np.float32))


@pytest.mark.parametrize("k", [0, -1])
@pytest.mark.parametrize("n", [0, 2])
def test_a_search_for_less_than_one_is_refused(n: int, k: int) -> None:
    index, _ = index_of(n)
    with pytest.raises(ValueError, match=rf"k = {k}: must be at least 1"):
        index.search(unit_rows(1)[0], k)


def test_a_query_may_be_the_one_row_that_a_model_gives_for_one_text() -> None:
    index, rows = index_of(5)
    assert index.search(rows[2:3]) == index.search(rows[2])


def test_5_with_no_negative_score_are_found_where_nothing_else_is_said() -> None:
    index, rows = index_of(100)
    query = unit_rows(1, seed=1)[0]
    assert index.search(query) == index.search(query, 5, 0.0)
    assert len(index.search(query)) == 5
    n_positive = int((rows @ query >= 0).sum())
    assert len(index.search(query, 100)) == n_positive < 100
    assert len(index.search(query, 100, -1.0)) == 100


def test_the_nearest_comes_first_and_none_is_below_the_least_score() -> None:
    index = FAISSIndex(2)
    index.add_embeddings(np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32), [1, 2, 3, 4])
    query = np.array([1, 0], dtype=np.float32)
    assert [i for i, _ in index.search(query, k=4, min_score=-1)] == [1, 4, 2, 3]
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
    assert [i for i, _ in index.search(query, k=k, min_score=-1, among=among)] == best.tolist()


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


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir], ids=["missing", "directory"])
@pytest.mark.parametrize("kind", [Path, str])
def test_a_file_that_is_none_is_refused_by_its_name(
    tmp_path: Path, make: Callable[[Path], None], kind: type[Path] | type[str]
) -> None:
    make(tmp_path / "vectors.faiss")
    with pytest.raises(IndexRefused, match=r"vectors\.faiss: \[Errno"):
        FAISSIndex.load(kind(tmp_path / "vectors.faiss"))


@pytest.mark.parametrize(
    "other",
    [
        faiss.IndexFlatIP(DIM),
        faiss.IndexIDMap(faiss.IndexFlatIP(DIM)),
        faiss.IndexIDMap2(faiss.IndexFlatL2(DIM)),
        faiss.IndexIDMap2(faiss.IndexHNSWFlat(DIM, 4, faiss.METRIC_INNER_PRODUCT)),
    ],
    ids=["no ids", "ids one way", "distance", "not exact"],
)
def test_a_file_with_another_kind_of_index_is_refused(tmp_path: Path, other: faiss.Index) -> None:
    path = tmp_path / "vectors.faiss"
    faiss.write_index(other, str(path))
    with pytest.raises(IndexRefused, match=r"holds a Index\w+ that is none of ours"):
        FAISSIndex.load(path)


def test_a_file_with_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    doubled = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    doubled.add_with_ids(unit_rows(2), np.array([7, 7]))
    faiss.write_index(doubled, str(path))
    with pytest.raises(IndexRefused, match=r"vectors\.faiss: "):
        FAISSIndex.load(path)


def test_a_path_may_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index, _ = index_of(3)
    index.save("vectors.faiss")
    assert len(FAISSIndex.load("vectors.faiss")) == 3


def test_saving_replaces_the_file_that_was_there_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    for n in (5, 0, 9):
        index_of(n)[0].save(path)
        assert len(FAISSIndex.load(path)) == n
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def disk_that_takes(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond `n_bytes`: writing fails as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("n", [1, 1000])
def test_a_full_disk_leaves_the_old_file_whole_and_no_other(tmp_path: Path, n: int) -> None:
    path = tmp_path / "vectors.faiss"
    index, _ = index_of(n)
    index.save(path)
    n_bytes = path.stat().st_size
    old, _ = index_of(2)
    old.save(path)
    whole = path.read_bytes()
    for room in {0, 1, n_bytes // 2, n_bytes - 1}:
        with disk_that_takes(room), pytest.raises(OSError, match="File too large"):
            index.save(path)
        assert path.read_bytes() == whole
        assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_cannot_take_the_files_place_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = tmp_path / "vectors.faiss"
    taken.mkdir()
    index, _ = index_of(2)
    with pytest.raises(OSError, match=r"vectors\.faiss"):
        index.save(taken)
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "nowhere" / "vectors.faiss")
    assert list(tmp_path.iterdir()) == [taken]


class CardOfTests:
    """Stands for the GPU: counts what is copied to it, and refuses what FAISS cannot do on one."""

    def __init__(self) -> None:
        self.n_uploads = 0
        self.n_appended = 0
        self.n_searches = 0
        self.failing: list[str] = []

    def upload(self, index: faiss.Index) -> Any:
        self.n_uploads += 1
        return _IndexOfTests(self, faiss.clone_index(index))


class _IndexOfTests:
    def __init__(self, card: CardOfTests, index: faiss.Index) -> None:
        self._card, self._index = card, index
        self._busy = False

    @property
    def ntotal(self) -> int:
        return self._index.ntotal

    def add(self, rows: Vectors) -> None:
        self._card.n_appended += len(rows)
        if self._card.failing:
            raise RuntimeError(self._card.failing.pop())
        self._index.add(rows)

    def search(self, row: Vectors, k: int) -> Any:
        assert k <= 2048, "more than a GPU gives"
        assert not self._busy, "two searches at once"
        self._busy = True
        self._card.n_searches += 1
        try:
            return self._index.search(row, k)
        finally:
            self._busy = False


def index_on(card: CardOfTests, n: int) -> tuple[FAISSIndex, Vectors]:
    rows = unit_rows(n)
    index = FAISSIndex(DIM, use_gpu=True, upload=card.upload)
    index.add_embeddings(rows, range(1, n + 1))
    return index, rows


def test_without_gpu_support_an_index_on_a_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_of(2)[0].save(tmp_path / "vectors.faiss")
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    for start in (
        lambda: FAISSIndex(DIM, use_gpu=True),
        lambda: FAISSIndex.load(tmp_path / "vectors.faiss", use_gpu=True),
    ):
        with pytest.raises(SettingsError, match=r"^USE_GPU = True: .* install faiss-gpu in its place$"):
            start()


def test_without_a_gpu_an_index_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(SettingsError, match=r"^USE_GPU = True: .* faiss finds no CUDA device$"):
        FAISSIndex(DIM, use_gpu=True)


def test_with_a_gpu_the_vectors_are_copied_to_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def index_cpu_to_gpu(resources: object, device: int, index: faiss.Index) -> faiss.Index:
        copied.append((type(resources), device, type(index), index.ntotal))
        return faiss.clone_index(index)

    monkeypatch.setattr(faiss, "StandardGpuResources", dict, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    index = FAISSIndex(DIM, use_gpu=True)
    index.add_embeddings(unit_rows(3), [1, 2, 3])
    assert index.search(unit_rows(3)[1])[0][0] == 2
    assert copied == [(dict, 0, faiss.IndexFlatIP, 3)]


def test_the_gpu_finds_what_the_cpu_finds() -> None:
    card = CardOfTests()
    on_gpu, _ = index_on(card, 500)
    on_cpu, _ = index_of(500)
    for query in unit_rows(20, seed=1):
        assert on_gpu.search(query, 7, -1.0) == on_cpu.search(query, 7, -1.0)
    assert (card.n_uploads, card.n_searches) == (1, 20)


def test_the_gpu_is_asked_where_all_ids_are_wanted_and_the_cpu_where_some_are() -> None:
    card = CardOfTests()
    index, rows = index_on(card, 100)
    assert index.search(rows[0], 1, among=np.arange(1, 101))[0][0] == 1
    assert card.n_searches == 1
    for n in (5, 99):
        assert index.search(rows[0], 1, among=np.arange(1, n + 1))[0][0] == 1
    assert card.n_searches == 1


@pytest.mark.parametrize(("k", "n_searches"), [(2047, 1), (2048, 0), (2999, 0), (3000, 0), (5000, 0)])
def test_more_than_a_gpu_gives_is_found_on_the_cpu(k: int, n_searches: int) -> None:
    card = CardOfTests()
    index, rows = index_on(card, 3000)
    found = index.search(rows[0], k, -1.0)
    assert found == index_of(3000)[0].search(rows[0], k, -1.0)
    assert len(found) == min(k, 3000)
    assert card.n_searches == n_searches


def test_more_equal_scores_than_a_gpu_gives_are_found_on_the_cpu() -> None:
    index = FAISSIndex(DIM, use_gpu=True, upload=CardOfTests().upload)
    index.add_embeddings(np.repeat(unit_rows(1), 5000, axis=0), np.arange(4999, -1, -1))
    assert [i for i, _ in index.search(unit_rows(1)[0], 3)] == [0, 1, 2]


def test_only_what_was_added_is_copied_after_an_addition() -> None:
    card = CardOfTests()
    index, rows = index_on(card, 100)
    index.search(rows[0])
    new = unit_rows(3, seed=1)
    for i in range(3):
        index.add_embeddings(new[i : i + 1], [1000 + i])
    assert index.search(new[2])[0][0] == 1002
    assert (card.n_uploads, card.n_appended) == (1, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda index, _: index.remove([3]),
        lambda index, new: index.add_embeddings(new, [3]),
        lambda index, _: index.clear(),
        lambda index, new: (index.remove([3, 4]), index.add_embeddings(new, [200])),
        lambda index, new: (index.clear(), index.add_embeddings(np.repeat(new, 100, axis=0), range(100))),
    ],
    ids=["remove", "replace", "clear", "remove and add", "clear and refill"],
)
def test_no_search_finds_what_was_there_before_a_change(change: Callable[[FAISSIndex, Vectors], Any]) -> None:
    card = CardOfTests()
    on_gpu, rows = index_on(card, 100)
    on_cpu, _ = index_of(100)
    new = unit_rows(1, seed=1)
    on_gpu.search(rows[2])
    change(on_gpu, new)
    change(on_cpu, new)
    for query in (rows[2], new[0]):
        assert on_gpu.search(query, 5, -1.0) == on_cpu.search(query, 5, -1.0)


def test_a_removal_of_nothing_copies_nothing() -> None:
    card = CardOfTests()
    index, rows = index_on(card, 10)
    for _ in range(3):
        index.search(rows[0])
        index.remove([])
        index.remove([99])
    assert card.n_uploads == 1


def test_a_copy_that_failed_halfway_is_made_anew() -> None:
    card = CardOfTests()
    index, rows = index_on(card, 10)
    index.search(rows[0])
    new = unit_rows(1, seed=1)
    index.add_embeddings(new, [50])
    card.failing.append("the GPU's memory is full")
    with pytest.raises(RuntimeError, match="memory is full"):
        index.search(new[0])
    assert index.search(new[0])[0][0] == 50
    assert card.n_uploads == 2


def test_a_file_comes_back_on_a_gpu_and_from_one(tmp_path: Path) -> None:
    card = CardOfTests()
    on_gpu, rows = index_on(card, 20)
    on_gpu.search(rows[0])
    on_gpu.save(tmp_path / "from_gpu")
    index_of(20)[0].save(tmp_path / "from_cpu")
    assert (tmp_path / "from_gpu").read_bytes() == (tmp_path / "from_cpu").read_bytes()
    back = FAISSIndex.load(tmp_path / "from_cpu", use_gpu=True, upload=card.upload)
    assert back.search(rows[4])[0][0] == 5
    assert (card.n_uploads, card.n_searches) == (2, 2)


def test_searches_beside_each_other_after_a_change_copy_once() -> None:
    card = CardOfTests()
    index, rows = index_on(card, 200)
    go = Event()

    def search(place: int) -> int:
        go.wait()
        return index.search(rows[place], 1)[0][0]

    with ThreadPoolExecutor(8) as pool:
        for n_copies in range(1, 6):
            futures = [pool.submit(search, place) for place in range(1, 101)]
            go.set()
            assert [future.result() for future in futures] == list(range(2, 102))
            assert card.n_uploads == n_copies
            go.clear()
            index.add_embeddings(unit_rows(1, seed=n_copies), [1])
