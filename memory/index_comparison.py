"""Compares an index with the database: which ids are in only one of them, and whose vectors differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.models import MemoryId, Seq
from memory.store.vectors import read_indexed_ids, read_vectors
from memory.unit_vectors import is_usable, usable_vectors
from memory.window_index import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from memory.snapshot import Snapshot
    from memory.store.vectors import IndexRow

    Ids = npt.NDArray[np.int64]

SAMPLED_VECTORS = 1000
_AT_ONCE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Index against database, at one event. Equal where all three numbers are 0."""

    seq: Seq
    n_memories: int
    n_vectors: int
    n_missing: int  # in the database, not in the index
    n_extra: int  # in the index, not in the database
    n_sampled: int
    n_different: (
        int  # of the sampled, not the vector or the words of their rows, or another namespace or type
    )
    examples: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether index and database hold the same."""
        return self.n_missing == self.n_extra == self.n_different == 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "equal": self.equal}


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Every id about which index and database do not agree, at one event."""

    seq: Seq
    n_memories: int
    n_vectors: int
    missing: Ids  # in the database, not in the index
    extra: Ids  # in the index, not in the database
    uncatalogued: Ids  # in only one of vectors and catalogue, or with further windows alone
    wordless: Ids  # of the others: in only one of words and database
    n_sampled: int
    different: Ids  # of the sampled: not the bytes that their rows' embeddings become in the index
    misplaced: Ids  # of the sampled: another namespace or type in the catalogue
    misworded: Ids  # of the sampled: not the words, the author or the place in a conversation of their rows
    damaged: Ids  # of the missing and the different: the row's vector is no vector of this model

    def summed_up(self) -> Comparison:
        """Return the numbers."""
        extra = np.union1d(np.union1d(self.extra, self.uncatalogued), self.wordless)
        different = np.union1d(np.union1d(self.different, self.misplaced), self.misworded)
        examples = [*self.missing[:5].tolist(), *extra[:5].tolist(), *different[:5].tolist()]
        return Comparison(
            seq=self.seq,
            n_memories=self.n_memories,
            n_vectors=self.n_vectors,
            n_missing=len(self.missing),
            n_extra=len(extra),
            n_sampled=self.n_sampled,
            n_different=len(different),
            examples=tuple(MemoryId(i) for i in examples),
        )


def find_differences(
    content: Snapshot,
    connection: Connection,
    *,
    dim: int,
    n_sampled: int | None,
    rng: np.random.Generator,
    on_progress: Callable[[], None] = lambda: None,
) -> Differences:
    """Compare an index with the rows it must hold, as this transaction sees them.

    Only ids are held in memory for all rows, 8 bytes each; vectors are read for the sample alone.

    Args:
        content: the index.
        connection: a transaction that sees the database as of the index's event.
        dim: numbers of a vector.
        n_sampled: how many vectors are compared byte by byte; all of them for `None`.
        rng: chooses the sample.
        on_progress: called now and then.

    """
    in_index = content.index.ids()
    in_catalogue = content.catalogue.ids()
    with_windows = content.windows.owners()
    with_words = content.words.ids()
    in_database = read_indexed_ids(connection)
    on_progress()
    missing = np.setdiff1d(in_database, in_index, assume_unique=True)
    extra = np.setdiff1d(in_index, in_database, assume_unique=True)
    common = np.intersect1d(np.intersect1d(in_database, in_index), np.intersect1d(in_catalogue, with_words))
    if n_sampled is not None and n_sampled < len(common):
        common = np.sort(rng.choice(common, size=n_sampled, replace=False))
    found = _Differing()
    for row in _rows(connection, missing, on_progress=on_progress):
        if not is_usable(row.embedding, dim=dim):
            found.damaged.append(row.memory_id)
    for some in _chunks(common):
        found.look(content, read_vectors(connection, [MemoryId(i) for i in some.tolist()]), dim=dim)
        on_progress()
    return Differences(
        seq=content.applied_seq,
        n_memories=len(in_database),
        n_vectors=len(in_index),
        missing=missing,
        extra=extra,
        uncatalogued=np.union1d(
            np.setxor1d(in_index, in_catalogue, assume_unique=True), np.setdiff1d(with_windows, in_index)
        ),
        wordless=np.setdiff1d(
            np.setxor1d(in_database, with_words, assume_unique=True), np.union1d(missing, extra)
        ),
        n_sampled=len(common),
        different=_ids(found.different),
        misplaced=_ids(found.misplaced),
        misworded=_ids(found.misworded),
        damaged=_ids(found.damaged),
    )


class _Differing:
    """Ids of memories of which something is not in the index as it is in the row."""

    def __init__(self) -> None:
        self.different: list[int] = []
        self.misplaced: list[int] = []
        self.misworded: list[int] = []
        self.damaged: list[int] = []

    def look(self, content: Snapshot, rows: Sequence[IndexRow], *, dim: int) -> None:
        """Compare rows whose memories are in the index."""
        ids = np.asarray([row.memory_id for row in rows], dtype=np.int64)
        is_good, vectors, counts = usable_vectors([row.embedding for row in rows], dim=dim)
        parts, whole = Parts.of(vectors, counts), ids[is_good]
        agree = content.index.agree(whole, parts.firsts) & content.windows.agree(whole, parts)
        self.damaged += ids[~is_good].tolist()
        self.different += [*ids[~is_good].tolist(), *whole[~agree].tolist()]
        self.misworded += ids[~content.words.agree([row.text for row in rows])].tolist()
        groups = zip(rows, content.catalogue.groups_of(ids), strict=True)
        self.misplaced += [
            row.memory_id for row, group in groups if group != (row.namespace, row.memory_type)
        ]


def _rows(connection: Connection, ids: Ids, *, on_progress: Callable[[], None]) -> Iterator[IndexRow]:
    for some in _chunks(ids):
        yield from read_vectors(connection, [MemoryId(i) for i in some.tolist()])
        on_progress()


def _chunks(ids: Ids) -> Iterator[Ids]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _ids(found: list[int]) -> Ids:
    return np.asarray(sorted(found), dtype=np.int64)
