"""SQL that gives the index what it needs: ids, groups and embeddings of the rows it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select

from memory.models import MemoryId
from memory.schema import index_clock, memories, next_embeddings
from memory.store.rows import INDEXED, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRow:
    """What the index needs of one live memory."""

    memory_id: MemoryId
    namespace: str
    memory_type: str
    embedding: bytes  # float32 little-endian


_SERVING_MODEL = select(index_clock.c.model_fingerprint).scalar_subquery()

# Right after a switch of models a memory's vector is still beside its row, not in it.
_VECTORS = (
    select(
        memories.c.id,
        memories.c.namespace,
        memories.c.type,
        func.coalesce(next_embeddings.c.embedding, memories.c.embedding).label("embedding"),
    )
    .outerjoin_from(
        memories,
        next_embeddings,
        and_(
            next_embeddings.c.memory_id == memories.c.id,
            next_embeddings.c.model_fingerprint == _SERVING_MODEL,
        ),
    )
    .where(INDEXED)
)


def read_vectors(connection: Connection, ids: Sequence[MemoryId]) -> list[VectorRow]:
    """Return what the index needs of those of `ids` that are live and embedded."""
    found: list[VectorRow] = []
    for some in chunks(ids):
        found.extend(_vector_row(row) for row in connection.execute(_VECTORS.where(memories.c.id.in_(some))))
    return found


def iterate_vectors(connection: Connection, *, page: int = 10_000) -> Iterator[list[VectorRow]]:
    """Yield every indexed memory in pages by ascending id, as this transaction sees them."""
    after = 0
    while last := _end_of_page(connection, after=after, page=page):
        # Between two ends: with a limit, the other table would be read from its beginning for each page.
        statement = _VECTORS.where(memories.c.id > after, memories.c.id <= last).order_by(memories.c.id)
        if rows := [_vector_row(row) for row in connection.execute(statement)]:
            yield rows
        after = last


def _end_of_page(connection: Connection, *, after: int, page: int) -> int | None:
    ids = select(memories.c.id).where(memories.c.id > after).order_by(memories.c.id).limit(page).subquery()
    last: int | None = connection.scalar(select(func.max(ids.c.id)))
    return last


def _vector_row(row: Row[*tuple[Any, ...]]) -> VectorRow:
    return VectorRow(
        memory_id=MemoryId(row.id), namespace=row.namespace, memory_type=row.type, embedding=row.embedding
    )
