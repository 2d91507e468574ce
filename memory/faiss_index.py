"""The one door to FAISS: vectors by memory id, nearest neighbours by cosine, on CPU or GPU."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np

from memory.faiss_forms.exact import ExactForm
from memory.faiss_forms.files import read, write
from memory.faiss_forms.form import best
from memory.faiss_forms.gpu_copy import GpuCopy, upload_to_first_gpu
from memory.faiss_forms.inverted import POINTS_A_LIST, InvertedForm, lists_for
from memory.id_bits import IdBits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from memory.faiss_forms.form import Form, Ids, Lists, Neighbours, Vectors
    from memory.faiss_forms.gpu_copy import Upload

EXACT_UP_TO = 25_000
"""So many vectors are compared with one by one in 3 ms, and moved within 50 ms when their memory is full."""

_TOLERANCE = 1e-3  # of a vector's length


class FAISSIndex:
    """Unit vectors under their memory ids; the score is the inner product, so the cosine.

    Not thread-safe by itself: a change must not run beside anything else. Searches, `lists` and `save` may.

    It begins in the exact form: every vector is kept as it is, and compared with. One for many vectors is
    made by `inverted`: they lie in lists by likeness, a byte for each number, a search looks at the lists
    nearest to it, and a score may be off the cosine by `slack`. A search among few is exact but for that.

    With `use_gpu` the first CUDA device holds a copy of an exact form's vectors and answers searches over
    the whole index, for a `k` up to 2047. FAISS has no filter, no removal and no larger `k` there: all else
    runs on the CPU, as exactly, and so does every search of the other form. Changed and saved is always the
    CPU's index, so any machine can load the file.

    Args:
        dim: how many numbers a vector has.
        use_gpu: search on the GPU.
        upload: makes the copy on the GPU; another one is given only by tests.

    Raises:
        SettingsError: `use_gpu`, but FAISS has no GPU support or finds no GPU; says what is missing.

    """

    def __init__(self, dim: int, *, use_gpu: bool = False, upload: Upload | None = None) -> None:
        self.dim = dim
        self._gpu = GpuCopy(upload or upload_to_first_gpu()) if use_gpu else None
        self._highest_id = -1  # new ids mostly lie above it: then nothing needs replacing
        self._form: Form = ExactForm.empty(dim, gpu=self._gpu)

    @classmethod
    def inverted(
        cls,
        sample: Vectors,
        *,
        n: int,
        use_gpu: bool = False,
        upload: Upload | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> FAISSIndex:
        """Return an empty index for about `n` vectors like these. Takes 5 s on one core for a million.

        Args:
            sample: float32 (m, d), rows of length 1, `sample_size(n)` of them.
            n: how many it is for.
            use_gpu: as above.
            upload: as above.
            on_progress: called now and then; what it raises ends the work.

        Raises:
            ValueError: a wrong shape, none at all, or a row that is not finite or not of length 1.

        """
        m, dim = np.shape(sample)
        checked = _as_unit_rows("sample", sample, shape=(max(1, m), dim))
        index = cls(dim, use_gpu=use_gpu, upload=upload)
        index._form = InvertedForm.trained(checked, n_lists=min(lists_for(n), m), on_progress=on_progress)
        return index

    def __len__(self) -> int:
        return len(self._form)

    @property
    def slack(self) -> float:
        """How far a score may be from the cosine; 0 in the exact form."""
        return self._form.slack

    def outgrown(self, *, exact_up_to: int = EXACT_UP_TO) -> bool:
        """Return whether it holds more than its form is good for: another one of `inverted` is due."""
        if len(self) <= exact_up_to:
            return False
        # Not at the very border: it was made for as many as there were when that began.
        return not isinstance(self._form, InvertedForm) or self._form.n_lists < lists_for(4 * len(self) // 5)

    def add_embeddings(
        self, embeddings: Vectors, memory_ids: Sequence[int] | Ids, *, lists: Lists | None = None
    ) -> None:
        """Add float32 (n, d) unit rows under n distinct ids; an id that is there is replaced.

        Args:
            embeddings: the vectors.
            memory_ids: their ids.
            lists: what `lists` gave for these vectors, where that was asked before: most of the work.

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
        self._form.add(vectors, ids, lists=lists)
        self._highest_id = int(ids.max(initial=self._highest_id))

    def lists(self, embeddings: Vectors) -> Lists | None:
        """Return, for `add_embeddings`, where these vectors belong; `None` where that is all the same."""
        return self._form.lists(np.ascontiguousarray(embeddings, dtype=np.float32))

    def remove(self, ids: Sequence[int] | Ids) -> int:
        """Remove these ids; return how many were there."""
        return self._form.remove(np.unique(_as_ids(ids)))

    def clear(self) -> None:
        """Remove everything: the index is as new."""
        self._form, self._highest_id = ExactForm.empty(self.dim, gpu=self._gpu), -1

    def search(
        self, query: Vectors, k: int = 5, min_score: float = 0.0, *, among: Ids | IdBits | None = None
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
        ids, scores = self.nearest(query, k=k, among=among)
        cosines = np.clip(scores, -1, 1)  # rounding may have gone beyond
        return [(int(i), float(s)) for i, s in zip(ids, cosines, strict=True) if s >= min_score]

    def nearest(self, query: Vectors, *, k: int, among: Ids | IdBits | None = None) -> Neighbours:
        """Return the same as arrays: ids int64 (n,) and scores float32 (n,), whatever the scores are."""
        row = _as_unit_rows("query", np.atleast_2d(query), shape=(1, self.dim))
        if k < 1:
            message = f"k = {k}: must be at least 1"
            raise ValueError(message)
        return self._search(row, None if among is None or len(among) == len(self) else among, k=k)

    def scores(self, query: Vectors, ids: Ids) -> Vectors:
        """Return float32 (n,): the cosine of a unit vector and each of these ids, all there, off by `slack`.

        The same for an id whatever else is asked for: no matrix product, whose last digits hang on its size.
        """
        found: Vectors = np.clip(np.einsum("ij,j->i", self.vectors(ids), query), -1, 1)
        return found

    def vectors(self, ids: Sequence[int] | Ids) -> Vectors:
        """Return float32 (n, d): the vectors of ids that are there, as they are kept here, in this order."""
        wanted = np.ascontiguousarray(ids, dtype=np.int64)
        if not len(wanted):
            return np.empty((0, self.dim), dtype=np.float32)
        return self._form.vectors(wanted)

    def agree(self, ids: Sequence[int] | Ids, embeddings: Vectors) -> npt.NDArray[np.bool_]:
        """Return bool (n,): whether what is kept under ids that are there is what these vectors become here.

        Byte by byte, in either form. `embeddings` is float32 (n, d), rows of length 1.
        """
        if not len(ids):
            return np.empty(0, dtype=np.bool_)
        wanted = np.ascontiguousarray(ids, dtype=np.int64)
        return self._form.agree(wanted, np.ascontiguousarray(embeddings, dtype=np.float32))

    def ids(self) -> Ids:
        """Return every id in the index, ascending."""
        return self._form.ids()

    def save(self, path: Path | str) -> None:
        """Write the index to `path` and flush it to the disk: whole, or not at all.

        Raises:
            OSError: the disk did not take it. What was at `path` is still there, and nothing else is.

        """
        write(self._form.written, Path(path))

    @classmethod
    def load(cls, path: Path | str, *, use_gpu: bool = False, upload: Upload | None = None) -> FAISSIndex:
        """Read what `save` wrote, on a machine with or without a GPU. Only ever a file of our own.

        Raises:
            IndexRefused: there is no such file, FAISS cannot read it, or it holds another kind of index.
            SettingsError: `use_gpu`, but FAISS has no GPU support or finds no GPU.

        """
        loaded = read(Path(path))
        index = cls(loaded.d, use_gpu=use_gpu, upload=upload)
        if isinstance(loaded, faiss.IndexIDMap2):
            index._form = ExactForm(loaded, gpu=index._gpu)
        else:
            index._form = InvertedForm(loaded)
        index._highest_id = int(index.ids()[-1]) if len(index) else -1
        return index

    def _search(self, row: Vectors, among: Ids | IdBits | None, *, k: int) -> Neighbours:
        n = len(self) if among is None else len(among)
        k = min(k, n)
        if k == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if among is not None and n < self._form.few:
            few = among.ids() if isinstance(among, IdBits) else among
            return best(few, self.vectors(few) @ row[0], k=k)
        asked = min(k + 1, n)  # the one more shows whether equal scores go on behind the k-th
        ids, scores = self._form.scan(row, among, k=asked)
        while asked < min(n, self._form.most_tied) and scores[k - 1] == scores[-1]:
            asked = min(4 * asked, n)
            ids, scores = self._form.scan(row, among, k=asked)
        return best(ids, scores, k=k)


def sample_size(n: int) -> int:
    """Return how many vectors `FAISSIndex.inverted` wants to see for an index of `n`."""
    return min(n, POINTS_A_LIST * lists_for(n))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Bound the threads of one FAISS call in this thread, and no other, for the block."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


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
