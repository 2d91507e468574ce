"""Compares an index with the database: which ids are in only one of them, and whose vectors differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.models import MemoryId, Seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.snapshot import Snapshot
    from memory.store.vectors import VectorRow

_SAMPLED_VECTORS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Index against database, at one event. Equal where all three numbers are 0."""

    seq: Seq
    n_memories: int
    n_vectors: int
    n_missing: int  # in the database, not in the index
    n_extra: int  # in the index, not in the database
    n_sampled: int
    n_different: int  # of the sampled vectors, not the same bytes
    examples: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether index and database hold the same."""
        return self.n_missing == self.n_extra == self.n_different == 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "equal": self.equal}


def compare(content: Snapshot, rows: Sequence[VectorRow]) -> Comparison:
    """Compare an index with the rows it must hold: every id, and up to 1,000 vectors byte by byte."""
    in_index = content.index.ids()
    in_database = np.array([row.memory_id for row in rows], dtype=np.int64)
    missing = np.setdiff1d(in_database, in_index)
    extra = np.union1d(np.setdiff1d(in_index, in_database), np.setxor1d(in_index, content.catalogue.ids()))
    common = [row for row in rows if row.memory_id not in set(missing.tolist())]
    sample = common[:: max(1, len(common) // _SAMPLED_VECTORS)]
    vectors = content.index.vectors([row.memory_id for row in sample])
    different = [
        row.memory_id
        for row, vector in zip(sample, vectors, strict=True)
        if vector.astype("<f4").tobytes() != row.embedding
    ]
    examples = [*missing[:5].tolist(), *extra[:5].tolist(), *different[:5]]
    return Comparison(
        seq=content.applied_seq,
        n_memories=len(in_database),
        n_vectors=len(in_index),
        n_missing=len(missing),
        n_extra=len(extra),
        n_sampled=len(sample),
        n_different=len(different),
        examples=tuple(MemoryId(i) for i in examples),
    )
