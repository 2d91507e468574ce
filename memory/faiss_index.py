"""The one door to FAISS: vectors by memory id, exact nearest neighbours by cosine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import faiss
import numpy as np

from memory.errors import IndexRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]

# Below this share of the index, comparing just the wanted vectors beats scanning past the others.
_FEW = 0.1
# No vector file of ours comes near it; FAISS's own limit of 1 TiB would let a torn header allocate that.
_MAX_FILE_BYTES = 64 * 2**30


class FAISSIndex:
    """Unit vectors under their memory ids; the score is the inner product, so the cosine.

    Not thread-safe by itself: a change must not run beside anything else. Searches may.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._index = _empty(dim)
        self._highest_id = -1  # new ids mostly lie above it: then nothing needs replacing

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add_embeddings(self, embeddings: Vectors, memory_ids: Sequence[int] | Ids) -> None:
        """Add float32 (n, d) unit rows under n distinct ids; an id that is there is replaced."""
        ids = np.asarray(memory_ids, dtype=np.int64)
        vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
        if vectors.shape != (len(ids), self.dim):
            message = f"embeddings have shape {vectors.shape}, expected {(len(ids), self.dim)}"
            raise ValueError(message)
        if len(np.unique(ids)) != len(ids):
            message = "the same id twice in one call"
            raise ValueError(message)
        if not len(ids):
            return
        if ids.min() <= self._highest_id:
            self.remove(ids)  # FAISS itself would keep both
        self._index.add_with_ids(vectors, ids)
        self._highest_id = max(self._highest_id, int(ids.max()))

    def remove(self, ids: Sequence[int] | Ids) -> int:
        """Remove these ids; return how many were there."""
        present = self._present(np.asarray(ids, dtype=np.int64))
        # A removal moves every vector behind it, so it is done only where there is something to remove.
        return int(self._index.remove_ids(faiss.IDSelectorBatch(present))) if len(present) else 0

    def clear(self) -> None:
        """Remove everything."""
        self._index.reset()

    def search(
        self, query: Vectors, *, k: int = 5, min_score: float = -1.0, among: Ids | None = None
    ) -> list[tuple[int, float]]:
        """Return the `k` nearest (id, score) of one unit vector (d,), best first; ties by id.

        Args:
            query: float32 (d,), length 1.
            k: how many at most.
            min_score: none below it; cosine, -1..1.
            among: distinct ids that are in the index; only these are looked at. All where absent.

        """
        k = min(k, len(self) if among is None else len(among))
        if k == 0:
            return []
        row = np.ascontiguousarray(query, dtype=np.float32).reshape(1, self.dim)
        if among is not None and len(among) < _FEW * len(self):
            ids, scores = self._search_few(row[0], among, k=k)
        else:
            ids, scores = self._search_many(row, among, k=k)
        found = [(int(i), float(s)) for i, s in zip(ids, scores, strict=True) if i != -1 and s >= min_score]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))

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

    def save(self, path: Path) -> None:
        """Write the index to `path` and flush it to the disk. Not atomic: give it a new name each time."""
        faiss.write_index(self._index, str(path))
        with path.open("rb") as file:
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path) -> FAISSIndex:
        """Read what `save` wrote. Only ever a file of our own, whose checksum was compared.

        Raises:
            IndexRefused: FAISS cannot read it, or it holds another kind of index.

        """
        try:
            faiss.set_deserialization_vector_byte_limit(_MAX_FILE_BYTES)
            loaded = faiss.read_index(str(path))
        except RuntimeError as error:
            message = f"{path}: {error}"
            raise IndexRefused(message) from error
        if not isinstance(loaded, faiss.IndexIDMap2):
            message = f"{path}: holds a {type(loaded).__name__}"
            raise IndexRefused(message)
        index = cls(loaded.d)
        index._index = loaded
        index._highest_id = int(index.ids()[-1]) if len(index) else -1
        return index

    def _present(self, ids: Ids) -> Ids:
        if len(self) == 0 or not len(ids):
            return ids[:0]
        known = faiss.vector_to_array(self._index.id_map)
        return ids[np.isin(ids, known)]

    def _search_few(self, query: npt.NDArray[np.float32], among: Ids, *, k: int) -> tuple[Ids, Vectors]:
        scores = self.vectors(among) @ query
        best = np.argpartition(-scores, k - 1)[:k]
        return among[best], scores[best]

    def _search_many(self, row: Vectors, among: Ids | None, *, k: int) -> tuple[Ids, Vectors]:
        parameters = None
        if among is not None and len(among) < len(self):
            wanted = np.zeros(int(among.max(initial=0)) // 8 * 8 + 8, dtype=bool)
            wanted[among] = True
            bits = np.packbits(wanted, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        scores, ids = self._index.search(row, k, params=parameters)
        return ids[0], scores[0]


def set_threads(n: int) -> None:
    """Bound the threads of one FAISS call in this process."""
    faiss.omp_set_num_threads(n)


def _empty(dim: int) -> faiss.IndexIDMap2:
    return faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
