"""Which stored embeddings can be used: damage to the database must harm no memory but its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_LENGTH_TOLERANCE = 1e-3


class UsableVectors(NamedTuple):
    """The embeddings, of some, that can be used."""

    usable: npt.NDArray[np.bool_]
    """bool (n,): which of those given"""
    vectors: npt.NDArray[np.float32]
    """float32 (w, d), rows of length 1: the windows of the usable ones, in order"""
    counts: npt.NDArray[np.int64]
    """int64 (m,): how many windows each usable one has, from 1"""


def usable_vectors(embeddings: Sequence[bytes], *, dim: int) -> UsableVectors:
    """Return which of these are whole vectors of length 1, and those.

    An embedding is float32, little-endian: the vectors of a memory's windows, one behind the other.
    """
    sizes = np.fromiter(map(len, embeddings), dtype=np.int64, count=len(embeddings))
    usable = (sizes > 0) & (sizes % (4 * dim) == 0)
    whole = (
        embeddings if usable.all() else [e for e, is_one in zip(embeddings, usable, strict=True) if is_one]
    )
    counts = sizes[usable] // (4 * dim)
    vectors = np.frombuffer(b"".join(whole), dtype="<f4").reshape(-1, dim)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        good = np.abs(lengths - 1) < _LENGTH_TOLERANCE  # which no NaN is
    if good.all():
        return UsableVectors(usable, vectors, counts)
    good_ones = np.logical_and.reduceat(good, np.cumsum(counts) - counts)
    usable[usable] = good_ones
    return UsableVectors(usable, vectors[np.repeat(good_ones, counts)], counts[good_ones])


def is_usable(embedding: bytes, *, dim: int) -> bool:
    """Whether these bytes are one or more float32 (dim,) of length 1."""
    return bool(usable_vectors([embedding], dim=dim).usable[0])
