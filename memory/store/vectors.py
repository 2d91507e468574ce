"""SQL that gives the index what it needs: ids, groups and embeddings of the rows it must hold."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from psycopg.pq import Format
from sqlalchemy import and_, event, func, select

from memory.models import MemoryId
from memory.postings import Text
from memory.schema import index_clock, memories, next_embeddings
from memory.store.rows import INDEXED, chunks, one_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import numpy.typing as npt
    from sqlalchemy import Connection


class IndexRow(NamedTuple):
    """What the index needs of one live memory. As a tuple, since a rebuild reads a million of them."""

    memory_id: MemoryId
    namespace: str
    memory_type: str
    embedding: bytes  # float32 little-endian
    content: str
    author: object  # of its metadata; only text counts
    source: str
    position: int | None
    created_at: datetime

    @property
    def text(self) -> Text:
        """What its words are found by."""
        return Text(
            memory_id=self.memory_id,
            namespace=self.namespace,
            content=self.content,
            author=self.author if isinstance(self.author, str) else None,
            source=self.source,
            position=self.position,
            created_at=self.created_at,
        )


_SPARSE = 10  # of so many ids, one is a live memory's

_SERVING_MODEL = select(index_clock.c.model_fingerprint).scalar_subquery()

SERVING_BESIDE = and_(
    next_embeddings.c.memory_id == memories.c.id, next_embeddings.c.model_fingerprint == _SERVING_MODEL
)
"""Right after a switch of models a memory's vector is still beside its row, not in it."""

_VECTORS = (
    select(
        memories.c.id,
        memories.c.namespace,
        memories.c.type,
        func.coalesce(next_embeddings.c.embedding, memories.c.embedding).label("embedding"),
        memories.c.content,
        memories.c.metadata["author"].label("author"),
        memories.c.source,
        memories.c.position,
        memories.c.created_at,
    )
    .outerjoin_from(memories, next_embeddings, SERVING_BESIDE)
    .where(INDEXED)
)


def read_vectors(connection: Connection, ids: Sequence[MemoryId]) -> list[IndexRow]:
    """Return what the index needs of those of `ids` that are live and embedded."""
    with _in_binary(connection):
        return list(map(IndexRow._make, connection.execute(_VECTORS.where(one_of(memories.c.id, ids)))))


def iterate_vectors(connection: Connection, *, page: int = 4000) -> Iterator[list[IndexRow]]:
    """Yield every indexed memory in pages by ascending id, as this transaction sees them.

    The longest memories that are accepted by default have 70 KB of vectors each.
    """
    after = 0
    while last := end_of_page(connection, after=after, page=page):
        # Between two ends: with a limit, the other table would be read from its beginning for each page.
        statement = _VECTORS.where(memories.c.id > after, memories.c.id <= last).order_by(memories.c.id)
        with _in_binary(connection):
            rows = list(map(IndexRow._make, connection.execute(statement)))
        if rows:
            yield rows
        after = last


def sample_vectors(connection: Connection, *, n: int, rng: np.random.Generator) -> Iterator[list[IndexRow]]:
    """Yield what the index needs of about `n` memories at random, of all where there are no more.

    Ids are guessed, most of which are there as a rule; where few are, all are read first.
    """
    n_there, highest = count_indexed(connection)
    if n_there * _SPARSE < highest:
        ids = read_indexed_ids(connection)
        chosen = rng.choice(ids, size=min(n, len(ids)), replace=False)
    else:
        chosen = rng.choice(highest, size=min(highest, n * highest // max(1, n_there)), replace=False) + 1
    for some in chunks(np.sort(chosen).tolist()):
        yield read_vectors(connection, some)


def count_indexed(connection: Connection) -> tuple[int, int]:
    """Return how many memories the index must hold, and the highest id of them, 0 where there is none."""
    n, highest = connection.execute(select(func.count(), func.max(memories.c.id)).where(INDEXED)).one()
    return n, highest or 0


def count_vectors(connection: Connection, *, dim: int) -> int:
    """Return how many vectors they have, all windows together: this looks at every row."""
    n_bytes = select(func.sum(func.length(func.coalesce(next_embeddings.c.embedding, memories.c.embedding))))
    of_all = n_bytes.select_from(memories).outerjoin(next_embeddings, SERVING_BESIDE).where(INDEXED)
    return int(connection.scalar(of_all) or 0) // (4 * dim)


def read_indexed_ids(connection: Connection, *, page: int = 100_000) -> npt.NDArray[np.int64]:
    """Return the id of every memory that the index must hold, ascending, as this transaction sees them."""
    pages = [np.empty(0, dtype=np.int64)]
    after = 0
    while True:
        statement = select(memories.c.id).where(INDEXED, memories.c.id > after).order_by(memories.c.id)
        with _in_binary(connection):
            ids = np.asarray(connection.scalars(statement.limit(page)).all(), dtype=np.int64)
        if not len(ids):
            return np.concatenate(pages)
        pages.append(ids)
        after = int(ids[-1])


def end_of_page(connection: Connection, *, after: int, page: int) -> int | None:
    """Return the last of the `page` ids behind `after`, `None` where there is none."""
    ids = select(memories.c.id).where(memories.c.id > after).order_by(memories.c.id).limit(page).subquery()
    last: int | None = connection.scalar(select(func.max(ids.c.id)))
    return last


@contextmanager
def _in_binary(connection: Connection) -> Iterator[None]:
    """Let Postgres send results as they are for the block: as text, a vector takes twice the room."""
    if connection.dialect.name != "postgresql":
        yield
        return
    event.listen(connection, "before_cursor_execute", _ask_for_binary)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", _ask_for_binary)


def _ask_for_binary(
    _connection: Connection, cursor: Any, _statement: str, _parameters: Any, _context: Any, _many: bool
) -> None:
    cursor.format = Format.BINARY
