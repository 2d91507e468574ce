"""How a row of `memories` becomes a `Memory` and back, and which rows count as live and as indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import and_, tuple_

from memory.models import Memory, MemoryId, MemoryType
from memory.schema import memories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Row

    from memory.messages import RawMemory

T = TypeVar("T")

Key = tuple[str, str]
"""(namespace, uid)"""

_KEYS_AT_ONCE = 500  # SQLite bounds the variables of one statement

LIVE = memories.c.deleted_at.is_(None)

INDEXED = and_(LIVE, memories.c.status == "ready")
"""The rows that the index must hold, and no others."""

MEMORY_COLUMNS = (
    memories.c.id,
    memories.c.uid,
    memories.c.namespace,
    memories.c.content,
    memories.c.type,
    memories.c.source,
    memories.c.metadata,
    memories.c.importance,
    memories.c.created_at,
    memories.c.last_access_at,
    memories.c.version,
)


def memory_of(row: Row[*tuple[Any, ...]]) -> Memory:
    """Return the memory in a row of `MEMORY_COLUMNS`."""
    return Memory(
        id=MemoryId(row.id),
        uid=row.uid,
        namespace=row.namespace,
        content=row.content,
        memory_type=MemoryType(row.type),
        source=row.source,
        metadata=row.metadata or {},
        importance=row.importance,
        created_at=row.created_at,
        last_access_at=row.last_access_at,
        version=row.version,
    )


def raw_values(raw: RawMemory) -> dict[str, Any]:
    """Return the column values that a raw memory gives."""
    return {
        "namespace": raw.namespace,
        "uid": raw.uid,
        "content": raw.content,
        "type": raw.memory_type.value,
        "source": raw.source,
        "metadata": raw.metadata,
        "importance": raw.importance,
        "created_at": raw.created_at,
    }


def key_in(keys: Sequence[Key]) -> ColumnElement[bool]:
    """Return the condition that a row has one of these keys."""
    return tuple_(memories.c.namespace, memories.c.uid).in_(keys)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield runs of `values` that are short enough for the variables of one statement."""
    for start in range(0, len(values), _KEYS_AT_ONCE):
        yield values[start : start + _KEYS_AT_ONCE]
