"""The exact form: every vector as it is, float32, compared with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np

from memory.faiss_forms.form import filtered

if TYPE_CHECKING:
    import numpy.typing as npt

    from memory.faiss_forms.form import Ids, Lists, Neighbours, Vectors
    from memory.faiss_forms.gpu_copy import GpuCopy
    from memory.id_bits import IdBits

_FEW = 0.1  # of the index
_GPU_K = 2048  # the most neighbours that FAISS gives in one search on a GPU


class ExactForm:
    """A `Form` of 4 d + 16 bytes a vector, whose searches and removals cost what the whole index is long.

    Args:
        index: what is there.
        gpu: answers searches over everything.

    """

    slack = 0.0

    def __init__(self, index: faiss.IndexIDMap2, *, gpu: GpuCopy | None) -> None:
        self.written = index
        self._flat = faiss.downcast_index(index.index)
        self._gpu = gpu
        if gpu:
            gpu.drop()

    @classmethod
    def empty(cls, dim: int, *, gpu: GpuCopy | None) -> ExactForm:
        """Return one without any vector."""
        return cls(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)), gpu=gpu)

    def __len__(self) -> int:
        return int(self.written.ntotal)

    @property
    def few(self) -> int:
        """A share of the index."""
        return int(np.ceil(_FEW * len(self)))

    @property
    def most_tied(self) -> int:
        """All of them."""
        return len(self)

    def ids(self) -> Ids:
        """Return every id, ascending."""
        return np.sort(self._ids())

    def lists(self, vectors: Vectors) -> None:  # noqa: ARG002 (the other form's are chosen by them)
        """Return nothing: there are no lists."""
        return

    def add(self, vectors: Vectors, ids: Ids, *, lists: Lists | None) -> None:  # noqa: ARG002 (see `lists`)
        """Add vectors under ids that are not there."""
        self.written.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> int:
        """Remove distinct ids; return how many were there."""
        present = ids[np.isin(ids, self._ids())] if len(ids) else ids
        if not len(present):  # a removal moves every vector behind it, so it is done only where there is one
            return 0
        if self._gpu:
            self._gpu.drop()
        return int(self.written.remove_ids(faiss.IDSelectorBatch(present)))

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors as they were given."""
        found: Vectors = self.written.reconstruct_batch(ids)
        return found

    def agree(self, ids: Ids, embeddings: Vectors) -> npt.NDArray[np.bool_]:
        """Return whether each is the same, byte by byte."""
        same: npt.NDArray[np.bool_] = (self.vectors(ids).view(np.int32) == embeddings.view(np.int32)).all(
            axis=1
        )
        return same

    def scan(self, row: Vectors, among: Ids | IdBits | None, *, k: int) -> Neighbours:
        """Compare with each."""
        if self._gpu and among is None and k <= _GPU_K:
            places, scores = self._gpu.search(self._flat, row, k=k)
            return np.array([self.written.id_map.at(int(place)) for place in places], dtype=np.int64), scores
        wanted = None if among is None else faiss.SearchParameters(sel=filtered(among))  # type: ignore[call-arg]
        scores, ids = self.written.search(row, k, params=wanted)
        return ids[0], scores[0]

    def _ids(self) -> Ids:
        return faiss.vector_to_array(self.written.id_map)
