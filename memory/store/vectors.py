"""SQL that gives the index what it needs: ids, groups and embeddings of the rows it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from memory.models import MemoryId
from memory.schema import memories
from memory.store.memories import INDEXED, chunks

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


_VECTOR_COLUMNS = (memories.c.id, memories.c.namespace, memories.c.type, memories.c.embedding)


def read_vectors(connection: Connection, ids: Sequence[MemoryId]) -> list[VectorRow]:
    """Return what the index needs of those of `ids` that are live and embedded."""
    found: list[VectorRow] = []
    for some in chunks(ids):
        statement = select(*_VECTOR_COLUMNS).where(memories.c.id.in_(some), INDEXED)
        found.extend(_vector_row(row) for row in connection.execute(statement))
    return found


def iterate_vectors(connection: Connection, *, page: int = 10_000) -> Iterator[list[VectorRow]]:
    """Yield every indexed memory in pages by ascending id, as this transaction sees them."""
    statement = (
        select(*_VECTOR_COLUMNS)
        .where(INDEXED, memories.c.id > bindparam("after"))
        .order_by(memories.c.id)
        .limit(page)
    )
    after = 0
    while rows := [_vector_row(row) for row in connection.execute(statement, {"after": after})]:
        yield rows
        after = rows[-1].memory_id


def _vector_row(row: Row[*tuple[Any, ...]]) -> VectorRow:
    return VectorRow(
        memory_id=MemoryId(row.id), namespace=row.namespace, memory_type=row.type, embedding=row.embedding
    )
