"""What a form of the index can do, whichever it is, and the order in which neighbours are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import faiss
import numpy as np

from memory.id_bits import IdBits

if TYPE_CHECKING:
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]
    Lists = npt.NDArray[np.int64]
    Neighbours = tuple[Ids, Vectors]
    """int64 (m,) ids and float32 (m,) scores, in the same order"""


class Form(Protocol):
    """Vectors under ids. Searches and `written` may run beside each other, changes beside nothing."""

    @property
    def slack(self) -> float:
        """How far a score may be from the cosine, 0 where it is that but for rounding."""

    @property
    def few(self) -> int:
        """Among fewer ids than these, comparing just their vectors beats scanning past the others."""

    @property
    def most_tied(self) -> int:
        """How many equal scores at most are looked through for the lowest ids."""

    @property
    def written(self) -> faiss.Index:
        """What is written to a file."""

    def __len__(self) -> int: ...

    def ids(self) -> Ids:
        """Return every id, ascending."""

    def lists(self, vectors: Vectors) -> Lists | None:
        """Return where `add` is to put these vectors. May run beside anything."""

    def add(self, vectors: Vectors, ids: Ids, *, lists: Lists | None) -> None:
        """Add vectors under ids that are not there."""

    def remove(self, ids: Ids) -> int:
        """Remove distinct ids; return how many were there."""

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors as they are kept, of ids that are there."""

    def agree(self, ids: Ids, embeddings: Vectors) -> npt.NDArray[np.bool_]:
        """Return whether what is kept under each id is what this form makes of that embedding."""

    def scan(self, row: Vectors, among: Ids | IdBits | None, *, k: int) -> Neighbours:
        """Return `k` of the best, best first; of those with the lowest score not always the lowest ids."""


def best(ids: Ids, scores: Vectors, *, k: int) -> Neighbours:
    """Return the `k` best, in order; of equal scores the lowest ids."""
    good = scores >= np.partition(scores, -k)[-k]
    ids, scores = ids[good], scores[good]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def filtered(among: Ids | IdBits) -> Any:
    """Return FAISS's selector of just these ids."""
    bits = among.bits if isinstance(among, IdBits) else IdBits(among).bits
    return faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg,arg-type]
