"""The one door to FAISS: vectors by memory id, exact nearest neighbours by cosine, on CPU or GPU."""

from __future__ import annotations

import os
import secrets
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np

from memory.errors import IndexRefused, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]
    Upload = Callable[[faiss.Index], faiss.Index]

# Below this share of the index, comparing just the wanted vectors beats scanning past the others.
_FEW = 0.1
# No vector file of ours comes near it; FAISS's own limit of 1 TiB would let a torn header allocate that.
_MAX_FILE_BYTES = 64 * 2**30
_TOLERANCE = 1e-3  # of a vector's length
_GPU_K = 2048  # the most neighbours that FAISS gives in one search on a GPU


class FAISSIndex:
    """Unit vectors under their memory ids; the score is the inner product, so the cosine.

    Not thread-safe by itself: a change must not run beside anything else. Searches and `save` may.

    With `use_gpu` the first CUDA device holds a copy of the vectors and answers searches over the whole
    index, for a `k` up to 2047. FAISS has no filter, no removal and no larger `k` there: all else runs on
    the CPU, as exactly. Changed and saved is always the CPU's index, so any machine can load the file.

    Args:
        dim: how many numbers a vector has.
        use_gpu: search on the GPU.
        upload: makes the copy on the GPU; another one is given only by tests.

    Raises:
        SettingsError: `use_gpu`, but FAISS has no GPU support or finds no GPU; says what is missing.

    """

    def __init__(self, dim: int, *, use_gpu: bool = False, upload: Upload | None = None) -> None:
        self.dim = dim
        self._gpu = _GpuCopy(upload or _upload_to_first_gpu()) if use_gpu else None
        self._highest_id = -1  # new ids mostly lie above it: then nothing needs replacing
        self._hold(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add_embeddings(self, embeddings: Vectors, memory_ids: Sequence[int] | Ids) -> None:
        """Add float32 (n, d) unit rows under n distinct ids; an id that is there is replaced.

        Raises:
            ValueError: a wrong shape, a row that is not finite or not of length 1 (within 0.001), an id
                twice, or no whole number from 0. Nothing was changed.

        """
        ids = _as_ids(memory_ids)
        vectors = _as_unit_rows("embeddings", embeddings, shape=(len(ids), self.dim))
        if len(np.unique(ids)) != len(ids):
            message = "the same id twice in one call"
            raise ValueError(message)
        if ids.min(initial=self._highest_id + 1) <= self._highest_id:
            self.remove(ids)  # FAISS itself would keep both
        self._index.add_with_ids(vectors, ids)
        self._highest_id = int(ids.max(initial=self._highest_id))

    def remove(self, ids: Sequence[int] | Ids) -> int:
        """Remove these ids; return how many were there."""
        present = _as_ids(ids)
        if len(present):
            present = present[np.isin(present, faiss.vector_to_array(self._index.id_map))]
        if not len(present):  # a removal moves every vector behind it, so it is done only where there is one
            return 0
        if self._gpu:
            self._gpu.drop()
        return int(self._index.remove_ids(faiss.IDSelectorBatch(present)))

    def clear(self) -> None:
        """Remove everything: the index is as new."""
        self._hold(faiss.IndexIDMap2(faiss.IndexFlatIP(self.dim)))

    def search(
        self, query: Vectors, k: int = 5, min_score: float = 0.0, *, among: Ids | None = None
    ) -> list[tuple[int, float]]:
        """Return the `k` nearest (id, score) of one unit vector, best first; ties by id.

        Args:
            query: float32 (d,) or (1, d), length 1.
            k: how many at most, from 1.
            min_score: none below it; cosine, -1..1.
            among: distinct ids that are in the index; only these are looked at. All where absent.

        Raises:
            ValueError: the query has a wrong shape, is not finite or not of length 1, or `k` is below 1.

        """
        row = _as_unit_rows("query", np.atleast_2d(query), shape=(1, self.dim))
        if k < 1:
            message = f"k = {k}: must be at least 1"
            raise ValueError(message)
        ids, scores = self._search(row, None if among is None or len(among) == len(self) else among, k=k)
        cosines = np.clip(scores, -1, 1)  # rounding may have gone beyond
        return [(int(i), float(s)) for i, s in zip(ids, cosines, strict=True) if i != -1 and s >= min_score]

    def vectors(self, ids: Sequence[int] | Ids) -> Vectors:
        """Return float32 (n, d): the stored vectors of ids that are in the index, in this order."""
        wanted = np.ascontiguousarray(ids, dtype=np.int64)
        if not len(wanted):
            return np.empty((0, self.dim), dtype=np.float32)
        found: Vectors = self._index.reconstruct_batch(wanted)
        return found

    def ids(self) -> Ids:
        """Return every id in the index, ascending."""
        return np.sort(faiss.vector_to_array(self._index.id_map))

    def save(self, path: Path | str) -> None:
        """Write the index to `path` and flush it to the disk: whole, or not at all.

        Raises:
            OSError: the disk did not take it. What was at `path` is still there, and nothing else is.

        """
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        try:
            with unfinished.open("wb") as file:
                # Given a path, FAISS does not notice that the disk is full at the last of its writes.
                writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
                faiss.write_index(self._index, writer)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @classmethod
    def load(cls, path: Path | str, *, use_gpu: bool = False, upload: Upload | None = None) -> FAISSIndex:
        """Read what `save` wrote, on a machine with or without a GPU. Only ever a file of our own.

        Raises:
            IndexRefused: there is no such file, FAISS cannot read it, or it holds another kind of index.
            SettingsError: `use_gpu`, but FAISS has no GPU support or finds no GPU.

        """
        loaded = _read(Path(path))
        index = cls(loaded.d, use_gpu=use_gpu, upload=upload)
        index._hold(loaded)
        return index

    def _hold(self, index: faiss.IndexIDMap2) -> None:
        if self._gpu:
            self._gpu.drop()
        self._index = index
        self._flat = faiss.downcast_index(index.index)
        self._highest_id = int(self.ids()[-1]) if len(self) else -1

    def _search(self, row: Vectors, among: Ids | None, *, k: int) -> tuple[Ids, Vectors]:
        n = len(self) if among is None else len(among)
        k = min(k, n)
        if k == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if among is not None and n < _FEW * len(self):
            return _best(among, self.vectors(among) @ row[0], k=k)
        wanted = None if among is None else _only(among)
        asked = min(k + 1, n)  # the one more shows whether equal scores go on behind the k-th
        ids, scores = self._scan(row, wanted, k=asked)
        while asked < n and scores[k - 1] == scores[-1]:
            asked = min(4 * asked, n)
            ids, scores = self._scan(row, wanted, k=asked)
        return _best(ids, scores, k=k)

    def _scan(self, row: Vectors, wanted: faiss.SearchParameters | None, *, k: int) -> tuple[Ids, Vectors]:
        """Return `k` of the best, unordered; of those with the lowest score not always the lowest ids."""
        if self._gpu and wanted is None and k <= _GPU_K:
            places, scores = self._gpu.search(self._flat, row, k=k)
            return np.array([self._index.id_map.at(int(place)) for place in places], dtype=np.int64), scores
        found, ids = self._index.search(row, k, params=wanted)
        return ids[0], found[0]


class _GpuCopy:
    """The vectors once more on a GPU, brought up to date by the first search after a change.

    A GPU's memory for work in progress serves one search at a time, so searches wait for each other.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._turn = threading.Lock()
        self._copy: faiss.Index | None = None  # the first `ntotal` vectors of the original, in its order

    def drop(self) -> None:
        """Forget the copy: vectors of the original are about to move."""
        with self._turn:
            self._copy = None

    def search(self, original: faiss.Index, row: Vectors, *, k: int) -> tuple[Ids, Vectors]:
        """Return the places in the original, and the scores, of the `k` nearest."""
        with self._turn:
            scores, places = self._fresh(original).search(row, k)
        return places[0], scores[0]

    def _fresh(self, original: faiss.Index) -> faiss.Index:
        copy, self._copy = self._copy, None  # one that fails halfway is made anew
        if copy is None:
            copy = self._upload(original)
        elif missing := original.ntotal - copy.ntotal:
            copy.add(original.reconstruct_n(copy.ntotal, missing))
        self._copy = copy
        return copy


def set_threads(n: int) -> None:
    """Bound the threads of one FAISS call in this process."""
    faiss.omp_set_num_threads(n)


def _upload_to_first_gpu() -> Upload:
    if not hasattr(faiss, "StandardGpuResources"):
        message = "USE_GPU = True: must be False with faiss-cpu; for a GPU install faiss-gpu in its place"
        raise SettingsError(message)
    if not faiss.get_num_gpus():
        message = "USE_GPU = True: must be False here, faiss finds no CUDA device"
        raise SettingsError(message)
    return partial(faiss.index_cpu_to_gpu, faiss.StandardGpuResources(), 0)


def _read(path: Path) -> faiss.IndexIDMap2:
    try:
        path.open("rb").close()  # says in plain words why it cannot
        faiss.set_deserialization_vector_byte_limit(_MAX_FILE_BYTES)
        loaded = faiss.read_index(str(path))
        if isinstance(loaded, faiss.IndexIDMap2):
            loaded.check_consistency()  # as many ids as vectors, and none twice
            inner = faiss.downcast_index(loaded.index)
            if isinstance(inner, faiss.IndexFlat) and inner.metric_type == faiss.METRIC_INNER_PRODUCT:
                return loaded
    except (OSError, RuntimeError) as error:
        message = f"{path}: {error}"
        raise IndexRefused(message) from error
    message = f"{path}: holds a {type(loaded).__name__} that is none of ours"
    raise IndexRefused(message)


def _as_unit_rows(name: str, rows: Vectors, *, shape: tuple[int, int]) -> Vectors:
    array = np.ascontiguousarray(rows, dtype=np.float32)
    if array.shape != shape:
        message = f"{name}: shape {array.shape}, expected {shape}"
        raise ValueError(message)
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _TOLERANCE))  # which a NaN is too
    if len(wrong):
        message = f"{name}: row {wrong[0]} has length {lengths[wrong[0]]:g}, expected 1"
        raise ValueError(message)
    return array


def _as_ids(ids: Sequence[int] | Ids) -> Ids:
    array = np.asarray(ids)
    whole = array.ndim == 1 and (array.dtype.kind in "iu" or not len(array))
    if not whole or array.astype(np.int64).min(initial=0) < 0:
        message = f"ids = {str(ids)[:80]}: must be a list of whole numbers from 0"
        raise ValueError(message)
    return array.astype(np.int64)


def _only(among: Ids) -> faiss.SearchParameters:
    wanted = np.zeros(int(among.max(initial=0)) // 8 * 8 + 8, dtype=bool)
    wanted[among] = True
    bits = np.packbits(wanted, bitorder="little")
    return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]


def _best(ids: Ids, scores: Vectors, *, k: int) -> tuple[Ids, Vectors]:
    """Return the `k` best, in order; of equal scores the lowest ids."""
    good = scores >= np.partition(scores, -k)[-k]
    ids, scores = ids[good], scores[good]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
