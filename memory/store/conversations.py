"""SQL on memories as messages of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import literal, select, tuple_

from memory.models import Memory, MemoryId
from memory.schema import Instant, memories
from memory.store.rows import LIVE, MEMORY_COLUMNS, memory_of, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Select

    from memory.database import Database

_PLACE = (memories.c.created_at, memories.c.position, memories.c.id)
"""Dates first: an export that begins later counts its positions from another message."""


class Context(NamedTuple):
    """A memory, and its neighbours in its conversation, in their order."""

    before: list[Memory]
    memory: Memory
    after: list[Memory]


def read_contexts(
    database: Database, ids: Sequence[MemoryId], *, before: int, after: int
) -> dict[MemoryId, Context]:
    """Return those of `ids` that are live, each with what stands around it.

    A conversation is what has the same namespace and source, and a position. A memory without one has no
    neighbours.

    Args:
        database: where they are.
        ids: the memories in the middle.
        before: at most so many that come before each.
        after: at most so many that come after each.

    """
    statement = select(*MEMORY_COLUMNS, memories.c.position).where(one_of(memories.c.id, ids), LIVE)
    with database.read() as connection:
        return {
            MemoryId(row.id): Context(
                before=_read(connection, _before(row), before)[::-1],
                memory=memory_of(row),
                after=_read(connection, _after(row), after),
            )
            if row.position is not None
            else Context(before=[], memory=memory_of(row), after=[])
            for row in connection.execute(statement).all()
        }


def _before(row: Row[*tuple[Any, ...]]) -> Select[Any]:
    return _same(row).where(tuple_(*_PLACE) < _place(row)).order_by(*(part.desc() for part in _PLACE))


def _after(row: Row[*tuple[Any, ...]]) -> Select[Any]:
    return _same(row).where(tuple_(*_PLACE) > _place(row)).order_by(*_PLACE)


def _same(row: Row[*tuple[Any, ...]]) -> Select[Any]:
    return select(*MEMORY_COLUMNS).where(
        LIVE,
        memories.c.namespace == row.namespace,
        memories.c.source == row.source,
        memories.c.position.is_not(None),
    )


def _place(row: Row[*tuple[Any, ...]]) -> Any:
    return tuple_(literal(row.created_at, Instant), literal(row.position), literal(row.id))


def _read(connection: Connection, statement: Select[Any], n: int) -> list[Memory]:
    return [memory_of(found) for found in connection.execute(statement.limit(n))] if n else []
