"""Makes an index from the rows alone, in the form that is right for so many."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import structlog

from memory.catalogue import Catalogue
from memory.errors import ModelMismatch
from memory.faiss_index import EXACT_UP_TO, FAISSIndex, sample_size, threads
from memory.languages import DEFAULT_LANGUAGE
from memory.snapshot import Snapshot
from memory.store.event_log import read_head, read_identity
from memory.store.vectors import count_indexed, count_vectors, iterate_vectors, sample_vectors
from memory.unit_vectors import usable_vectors
from memory.window_index import Parts, WindowIndex
from memory.word_index import WordIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from memory.database import Database
    from memory.models import Identity
    from memory.store.vectors import IndexRow

log = structlog.get_logger(__name__)

_SEED = 20_240_229  # any: equal rows give equal lists
_MOST_FURTHER = 10  # of a sampled memory's windows, in the mean


def index_of_rows(
    database: Database,
    identity: Identity,
    *,
    use_gpu: bool,
    exact_up_to: int = EXACT_UP_TO,
    language: str = DEFAULT_LANGUAGE,
    n_threads: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Make the index from the rows alone. The next rows are read while the last ones are added.

    Args:
        database: where the rows lie.
        identity: what their vectors belong to.
        use_gpu: whether a GPU answers searches.
        exact_up_to: the most memories for which the exact form is made.
        language: of the words, one of `memory.languages.LANGUAGES`.
        n_threads: of FAISS; as many as there are cores where absent.
        on_progress: called at least every few seconds; what it raises ends the work.

    Raises:
        ModelMismatch: the rows' vectors come from another model.
        ServerAway: the database cannot be reached.

    """
    n_threads = n_threads or os.cpu_count() or 1
    with threads(n_threads):
        index, windows = _empty(
            database, identity, use_gpu=use_gpu, exact_up_to=exact_up_to, on_progress=on_progress
        )
    catalogue, words = Catalogue(), WordIndex(language)

    def add(found: UsableRows) -> None:
        ids = np.fromiter((row.memory_id for row in found.rows), dtype=np.int64, count=len(found.rows))
        groups = [(row.namespace, row.memory_type) for row in found.rows]
        parts = Parts.of(found.vectors, found.counts)
        with threads(n_threads):
            index.add_embeddings(parts.firsts, ids)
            windows.put(ids, groups, parts)
        catalogue.put(ids.tolist(), groups)
        words.take(words.change(removed=(), texts=[row.text for row in found.rows]))

    with database.snapshot() as connection, ThreadPoolExecutor(max_workers=1) as adder:
        check_model(connection, identity)
        head = read_head(connection)
        adding = adder.submit(lambda: None)
        for rows in iterate_vectors(connection):
            found = usable(rows, dim=identity.dim)
            adding.result()
            on_progress()
            adding = adder.submit(add, found)
        adding.result()
    return Snapshot(index=index, windows=windows, catalogue=catalogue, words=words, applied_seq=head)


def check_model(connection: Connection, identity: Identity) -> Identity:
    """Return what the database's vectors belong to, as this transaction sees it.

    Raises:
        ModelMismatch: they are another model's.

    """
    stored = read_identity(connection)
    if stored is None or stored.model_fingerprint != identity.model_fingerprint:
        raise ModelMismatch(
            stored=stored.model_fingerprint if stored else None, configured=identity.model_fingerprint
        )
    return stored


class UsableRows(NamedTuple):
    """Rows with whole vectors of length 1, and these."""

    rows: Sequence[IndexRow]
    vectors: npt.NDArray[np.float32]
    """float32 (w, d): the windows of row after row"""
    counts: npt.NDArray[np.int64]
    """int64 (len(rows),): how many windows each has"""


def usable(rows: Sequence[IndexRow], *, dim: int) -> UsableRows:
    """Return the rows with whole vectors of length 1.

    Another one can only come of damage to the database. It must not keep all the others from being
    found; a comparison shows its memory as missing.
    """
    is_good, vectors, counts = usable_vectors([row.embedding for row in rows], dim=dim)
    if is_good.all():
        return UsableRows(rows, vectors, counts)
    found = [row for row, good in zip(rows, is_good.tolist(), strict=True) if good]
    damaged = {row.memory_id for row in rows} - {row.memory_id for row in found}
    log.error("vectors_damaged", memory_ids=sorted(damaged)[:10], n=len(damaged))
    return UsableRows(found, vectors, counts)


def _empty(
    database: Database,
    identity: Identity,
    *,
    use_gpu: bool,
    exact_up_to: int,
    on_progress: Callable[[], None],
) -> tuple[FAISSIndex, WindowIndex]:
    """Return indexes without vectors, for the rows' first windows and for the others, of the right forms."""
    rng = np.random.default_rng(_SEED)
    with database.snapshot() as connection:
        check_model(connection, identity)
        n, _ = count_indexed(connection)
        n_further = count_vectors(connection, dim=identity.dim) - n if n <= exact_up_to else 0
        sample = _Sample(identity.dim)
        if max(n, n_further) > exact_up_to:
            for rows in sample_vectors(connection, n=sample_size(max(n, n_further)), rng=rng):
                sample.add(usable(rows, dim=identity.dim), rng)
                on_progress()
    n_further = n_further or n * sample.n_further // max(1, sample.n_memories)

    def empty(vectors: npt.NDArray[np.float32], n: int) -> FAISSIndex:
        if n <= exact_up_to or not len(vectors):
            return FAISSIndex(identity.dim, use_gpu=use_gpu)
        chosen = rng.permutation(len(vectors))[: sample_size(n)]
        return FAISSIndex.inverted(vectors[chosen], n=n, use_gpu=use_gpu, on_progress=on_progress)

    # Outside of a transaction: drawing the lists takes seconds, for which a server would end it.
    return empty(np.concatenate(sample.firsts), n), WindowIndex(
        empty(np.concatenate(sample.further), n_further)
    )


class _Sample:
    """Vectors of memories at random. Not all of their further windows are kept: there may be very many."""

    def __init__(self, dim: int) -> None:
        self.firsts = [np.empty((0, dim), dtype=np.float32)]
        self.further = [np.empty((0, dim), dtype=np.float32)]
        self.n_memories = 0
        self.n_further = 0

    def add(self, found: UsableRows, rng: np.random.Generator) -> None:
        parts = Parts.of(found.vectors, found.counts)
        self.n_memories += len(parts.firsts)
        self.n_further += len(parts.further)
        kept = rng.permutation(len(parts.further))[: _MOST_FURTHER * len(parts.firsts)]
        self.firsts.append(parts.firsts.copy())
        self.further.append(parts.further[kept])
