"""SQL on associations: directed, typed links between live memories of one namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.errors import InvalidMemory, NotFound
from memory.models import MemoryAssociation, MemoryId, Metadata
from memory.schema import associations, memories
from memory.store.rows import LIVE, chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Row

    from memory.models import Direction


class Associations:
    """The associations of one database. They go with either of their memories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        memory_id: MemoryId,
        related_memory_id: MemoryId,
        *,
        relationship_type: str,
        strength: float,
        metadata: Metadata,
    ) -> MemoryAssociation:
        """Link two memories. One of this type between them, in this direction, is updated.

        Raises:
            NotFound: one of them is not there, or was deleted.
            InvalidMemory: they are the same, or of two namespaces.

        """
        if memory_id == related_memory_id:
            raise InvalidMemory(
                field="related_memory_id", value=related_memory_id, allowed="another memory than memory_id"
            )
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            _lock_both(connection, memory_id, related_memory_id)
            statement = dialect.insert(associations).values(
                from_id=memory_id,
                to_id=related_memory_id,
                type=relationship_type,
                strength=strength,
                metadata=metadata,
                created_at=database_now(connection),
            )
            changed = {"strength": statement.excluded.strength, "metadata": statement.excluded.metadata}
            row = connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["from_id", "to_id", "type"], set_=changed
                ).returning(associations)
            ).one()
        return _association(row)

    def remove(
        self, memory_id: MemoryId, related_memory_id: MemoryId, *, relationship_type: str | None
    ) -> int:
        """Remove the association of this type from the first to the second, or all types; return how many."""
        same = [associations.c.from_id == memory_id, associations.c.to_id == related_memory_id]
        if relationship_type is not None:
            same.append(associations.c.type == relationship_type)
        with self._database.write() as connection:
            return connection.execute(delete(associations).where(*same)).rowcount

    def around(
        self,
        ids: Sequence[MemoryId],
        *,
        direction: Direction | None = None,
        relationship_type: str | None = None,
        min_strength: float = 0.0,
    ) -> list[MemoryAssociation]:
        """Return the associations that leave these memories, or arrive at them, or both; by their number."""
        conditions = [associations.c.strength >= min_strength]
        if relationship_type is not None:
            conditions.append(associations.c.type == relationship_type)
        found: dict[int, MemoryAssociation] = {}
        with self._database.read() as connection:
            for some in chunks(sorted(ids)):
                statement = select(associations).where(_touches(some, direction), *conditions)
                found.update((row.id, _association(row)) for row in connection.execute(statement))
        return [found[i] for i in sorted(found)]


def _touches(ids: Sequence[MemoryId], direction: Direction | None) -> ColumnElement[bool]:
    leaves, arrives = associations.c.from_id.in_(ids), associations.c.to_id.in_(ids)
    if direction is None:
        return or_(leaves, arrives)
    return leaves if direction == "outgoing" else arrives


def _lock_both(connection: Connection, memory_id: MemoryId, related_memory_id: MemoryId) -> None:
    """Keep both memories from being deleted until the commit."""
    statement = (
        select(memories.c.id, memories.c.namespace)
        .where(and_(memories.c.id.in_([memory_id, related_memory_id]), LIVE))
        .order_by(memories.c.id)
        .with_for_update(read=True)
    )
    namespaces = {row.id: row.namespace for row in connection.execute(statement)}
    for wanted in (memory_id, related_memory_id):
        if wanted not in namespaces:
            message = f"no live memory with id {wanted}"
            raise NotFound(message)
    if namespaces[memory_id] != namespaces[related_memory_id]:
        allowed = f"a memory of the same namespace, {namespaces[memory_id]!r}"
        raise InvalidMemory(field="related_memory_id", value=related_memory_id, allowed=allowed)


def _association(row: Row[*tuple[Any, ...]]) -> MemoryAssociation:
    return MemoryAssociation(
        id=row.id,
        memory_id=MemoryId(row.from_id),
        related_memory_id=MemoryId(row.to_id),
        relationship_type=row.type,
        strength=row.strength,
        metadata=row.metadata or {},
        created_at=row.created_at,
    )
