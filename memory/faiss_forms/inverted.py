"""The form for many: vectors in lists by likeness, a byte for each number; a search looks at some lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from memory.faiss_forms.form import filtered

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from memory.faiss_forms.form import Ids, Lists, Neighbours, Vectors
    from memory.id_bits import IdBits

POINTS_A_LIST = 40
"""Vectors of the sample for each list; with fewer the lists are drawn less well."""

_FEW = 2000
_MOST_TIED = 4096
_ROUNDS = 10  # of k-means
_PROBES = 48  # lists, where everything passes the filter
_SEEN_A_NEIGHBOUR = 50  # vectors that pass the filter, in the lists looked at, for each neighbour asked for
_WIDER = 0.125  # of the sample's range of a number, on either side: later vectors may go beyond it
_LEAST_RANGE = 4.0  # times the size that a number of a unit vector has on average
_NEAR_ENOUGH = 1e-3


class InvertedForm:
    """A `Form` of d + 60 bytes a vector, whose searches cost what a few of its lists are long.

    Kept is the difference of a vector and the centre of its list, each number in one of 256 steps.
    """

    few = _FEW
    most_tied = _MOST_TIED

    def __init__(self, index: faiss.IndexIVFScalarQuantizer) -> None:
        self.written = index
        self._centres = faiss.downcast_index(index.quantizer)
        steps = _ranges(index)[1] / 255
        # Rounding errors of a step's width are even and independent: of these, five deviations.
        self.slack = 5 * float(np.sqrt(np.mean(steps**2) / 12))

    @classmethod
    def trained(
        cls, sample: Vectors, *, n_lists: int, on_progress: Callable[[], None] = lambda: None
    ) -> InvertedForm:
        """Return an empty one, for vectors like these: float32 (n, d), at least one for each list."""
        dim = sample.shape[1]
        index = faiss.IndexIVFScalarQuantizer(
            _centres_of(sample, n_lists=n_lists, on_progress=on_progress),
            dim,
            n_lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            True,
        )
        index.train(sample)  # the range of each number; the lists are drawn already
        _widen(index)
        map_ids(index)
        return cls(index)

    @property
    def n_lists(self) -> int:
        """How many lists there are."""
        return int(self.written.nlist)

    def __len__(self) -> int:
        return int(self.written.ntotal)

    def ids(self) -> Ids:
        """Return every id, ascending."""
        return ids_in(self.written)

    def lists(self, vectors: Vectors) -> Lists:
        """Return the number of the list whose centre is nearest to each vector."""
        _, lists = self._centres.search(vectors, 1)
        return np.ascontiguousarray(lists[:, 0])

    def add(self, vectors: Vectors, ids: Ids, *, lists: Lists | None) -> None:
        """Add vectors under ids that are not there, to these lists, else to the nearest ones."""
        if not len(ids):
            return
        chosen = self.lists(vectors) if lists is None else lists
        self.written.add_core(len(ids), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(chosen))

    def remove(self, ids: Ids) -> int:
        """Remove distinct ids; return how many were there."""
        return int(self.written.remove_ids(faiss.IDSelectorArray(ids))) if len(ids) else 0

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors as they are kept: near to those given, and not of length 1."""
        found: Vectors = self.written.reconstruct_batch(ids)
        return found

    def agree(self, ids: Ids, embeddings: Vectors) -> npt.NDArray[np.bool_]:
        """Return whether each one's bytes are its embedding's in its list, and that list is a near one."""
        place_of = self.written.direct_map.get
        places = np.array([place_of(i) for i in ids.tolist()], dtype=np.int64)
        lists, offsets = np.ascontiguousarray(places >> 32), places & 0xFFFFFFFF
        expected = np.empty((len(ids), self.written.code_size), dtype=np.uint8)
        self.written.encode_vectors(
            len(ids), faiss.swig_ptr(embeddings), faiss.swig_ptr(lists), faiss.swig_ptr(expected)
        )
        found = np.array(
            [self._kept(at, offset) for at, offset in zip(lists.tolist(), offsets.tolist(), strict=True)]
        )
        centres = self._centres.reconstruct_n(0, self.n_lists)
        given = np.einsum("ij,ij->i", embeddings, centres[lists])
        nearest, _ = self._centres.search(embeddings, 1)
        same: npt.NDArray[np.bool_] = (found == expected).all(axis=1) & (given > nearest[:, 0] - _NEAR_ENOUGH)
        return same

    def scan(self, row: Vectors, among: Ids | IdBits | None, *, k: int) -> Neighbours:
        """Compare with those in the nearest lists: in more of them, the fewer pass the filter."""
        n = len(self) if among is None else len(among)
        wanted = {} if among is None else {"sel": filtered(among)}
        n_probes = self._probes(share=n / len(self), k=k)
        while True:
            params = faiss.SearchParametersIVF(nprobe=n_probes, **wanted)  # type: ignore[call-arg]
            scores, ids = self.written.search(row, k, params=params)
            there = ids[0] != -1
            if there.all() or n_probes == self.n_lists:
                return ids[0][there], scores[0][there]
            n_probes = min(4 * n_probes, self.n_lists)

    def _probes(self, *, share: float, k: int) -> int:
        """Return how many lists to look at where this share of the index passes the filter."""
        for_recall = _PROBES / math.sqrt(share)
        for_many = _SEEN_A_NEIGHBOUR * k / (share * len(self)) * self.n_lists
        return min(self.n_lists, math.ceil(max(for_recall, for_many)))

    def _kept(self, at: int, offset: int) -> npt.NDArray[np.uint8]:
        lists: Any = self.written.invlists
        code = lists.get_single_code(at, offset)
        kept: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(code, self.written.code_size).copy()
        return kept


def lists_for(n: int) -> int:
    """Return how many lists `n` vectors are kept in: a power of two, twice as many for four times as many."""
    return 1 << max(2, math.floor(math.log2(math.sqrt(2 * n + 1))))


def _centres_of(sample: Vectors, *, n_lists: int, on_progress: Callable[[], None]) -> faiss.IndexFlatIP:
    """Return the lists' centres, by k-means: round by round, so that it can be ended in between."""
    dim = sample.shape[1]
    centres, rounds = faiss.IndexFlatIP(dim), faiss.ClusteringParameters()
    rounds.niter, rounds.spherical = 1, True
    rounds.min_points_per_centroid, rounds.max_points_per_centroid = 1, len(sample)
    clustering = faiss.Clustering(dim, n_lists, rounds)
    for _ in range(_ROUNDS):
        on_progress()
        clustering.train(sample, centres)  # each begins with the centres of the last one
    return centres


def map_ids(index: faiss.IndexIVF) -> None:
    """Make the map from ids to their places anew, from the lists themselves."""
    index.set_direct_map_type(faiss.DirectMap.NoMap)  # type: ignore[attr-defined]
    index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]


def ids_in(index: faiss.IndexIVF) -> Ids:
    """Return the ids in all lists, ascending."""
    found = [_ids_at(index.invlists, number) for number in range(index.nlist)]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))


def _ids_at(lists: Any, number: int) -> Ids:
    size = lists.list_size(number)
    ids: Ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy() if size else np.empty(0, dtype=np.int64)
    return ids


def _ranges(index: faiss.IndexIVFScalarQuantizer) -> tuple[Vectors, Vectors]:
    """Return the lowest value and the range of each number, float32 (d,)."""
    lowest, ranges = faiss.vector_to_array(index.sq.trained).reshape(2, index.d)
    return lowest, ranges


def _widen(index: faiss.IndexIVFScalarQuantizer) -> None:
    """Make room for vectors that go beyond the sample's, also in a number that never varied there."""
    lowest, ranges = _ranges(index)
    wide = np.maximum(ranges * (1 + 2 * _WIDER), _LEAST_RANGE / math.sqrt(index.d))
    trained = np.concatenate([lowest - (wide - ranges) / 2, wide]).astype(np.float32)
    faiss.copy_array_to_vector(trained, index.sq.trained)
