"""SQL on memories. Each change of rows and its index events are one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sqlalchemy import (
    Connection,
    and_,
    delete,
    func,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.errors import NotFound
from memory.models import Memory, MemoryId, MemoryType, Seq
from memory.schema import associations, index_events, index_state, memories
from memory.store.event_log import append_events, read_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    import numpy.typing as npt
    from sqlalchemy import ColumnElement, Row

    from memory.messages import RawMemory

T = TypeVar("T")

Key = tuple[str, str]
"""(namespace, uid)"""

_KEYS_AT_ONCE = 500  # SQLite bounds the variables of one statement

_LIVE = memories.c.deleted_at.is_(None)

INDEXED = and_(_LIVE, memories.c.status == "ready")
"""The rows that the index must hold, and no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one memory's row has come. `seq` is its newest unpruned event."""

    memory_id: MemoryId
    deleted: bool
    seq: Seq | None
    searchable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many memories are in each state. `stored` are the live ones; `searchable` is a part of them."""

    stored: int
    searchable: int
    pending: int
    deleted: int


class MemoryStore:
    """The memories of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, keys: Iterable[Key]) -> set[Key]:
        """Return those of `keys` that have a row, live or tombstone."""
        found: set[Key] = set()
        with self._database.read() as connection:
            for some in chunks(list(keys)):
                statement = select(memories.c.namespace, memories.c.uid).where(_key_in(some))
                found.update((row.namespace, row.uid) for row in connection.execute(statement))
        return found

    def insert(
        self, raws: Sequence[RawMemory], embeddings: npt.NDArray[np.float32], *, model_fingerprint: str
    ) -> tuple[list[MemoryId], Seq]:
        """Insert memories whose key is new, with their index events, in one transaction.

        Args:
            raws: distinct keys; one that has a row already, tombstone or not, changes nothing.
            embeddings: float32 (len(raws), d), rows of length 1, in the order of `raws`.
            model_fingerprint: the model that made the embeddings.

        Returns:
            The ids of the new rows, and the newest event's number (visible to a search that asks for it).

        """
        order = sorted(range(len(raws)), key=lambda i: raws[i].key)  # one lock order for all writers
        with self._database.write() as connection:
            at = database_now(connection)
            rows = [
                {
                    **_raw_values(raws[i]),
                    "stored_at": at,
                    "embedding": embeddings[i].astype("<f4").tobytes(),
                    "model_fingerprint": model_fingerprint,
                    "status": "ready",
                    "version": 1,
                }
                for i in order
            ]
            new = [MemoryId(i) for i in connection.scalars(self._insert_new(), rows)]
            seq = append_events(connection, new, op="+") if new else read_head(connection)
        return new, seq

    def get(self, memory_id: MemoryId) -> Memory:
        """Return a live memory by its id.

        Raises:
            NotFound: there is none, or it was deleted.

        """
        return self._one(memories.c.id == memory_id, shown=f"id {memory_id}")

    def get_by_uid(self, uid: str, *, namespace: str) -> Memory:
        """Return a live memory by its idempotency key.

        Raises:
            NotFound: there is none, or it was deleted.

        """
        same = and_(memories.c.namespace == namespace, memories.c.uid == uid)
        return self._one(same, shown=f"uid {uid!r} in namespace {namespace!r}")

    def live(
        self, ids: Sequence[MemoryId], *, namespace: str, memory_types: Sequence[MemoryType] | None
    ) -> dict[MemoryId, Memory]:
        """Return those of `ids` that are live, in this namespace and of these types."""
        conditions = [INDEXED, memories.c.namespace == namespace]
        if memory_types is not None:
            conditions.append(memories.c.type.in_([t.value for t in memory_types]))
        found: dict[MemoryId, Memory] = {}
        with self._database.read() as connection:
            for some in chunks(ids):
                statement = select(*_MEMORY_COLUMNS).where(memories.c.id.in_(some), *conditions)
                found.update((MemoryId(r.id), _memory(r)) for r in connection.execute(statement))
        return found

    def delete(self, memory_id: MemoryId) -> Seq:
        """Turn a live memory into a tombstone; its associations go too. Return the removal's number.

        Raises:
            NotFound: there is none, or it was deleted already.

        """
        with self._database.write() as connection:
            gone = bury(connection, [memory_id])
            if not gone:
                message = f"no live memory with id {memory_id}"
                raise NotFound(message)
            return append_events(connection, gone, op="-")

    def touch(self, ids: Sequence[MemoryId], *, not_since: timedelta) -> None:
        """Note that these memories were just recalled, at most once in `not_since` each."""
        with self._database.write() as connection:
            now = database_now(connection)
            stale = or_(memories.c.last_access_at.is_(None), memories.c.last_access_at < now - not_since)
            for some in chunks(sorted(ids)):
                connection.execute(
                    update(memories).where(memories.c.id.in_(some), _LIVE, stale).values(last_access_at=now)
                )

    def progress(self, keys: Iterable[Key]) -> dict[Key, Progress]:
        """Return how far each of `keys` that has a row has come."""
        newest = select(func.max(index_events.c.seq)).where(index_events.c.memory_id == memories.c.id)
        columns = (
            memories.c.id,
            memories.c.namespace,
            memories.c.uid,
            memories.c.deleted_at,
            memories.c.status,
        )
        applied_seq = select(index_state.c.applied_seq).scalar_subquery().label("applied_seq")
        statement = select(*columns, newest.scalar_subquery().label("seq"), applied_seq)
        found: dict[Key, Progress] = {}
        with self._database.read() as connection:
            for some in chunks(list(keys)):
                for row in connection.execute(statement.where(_key_in(some))):
                    applied = row.seq is None or row.seq <= row.applied_seq
                    found[row.namespace, row.uid] = Progress(
                        memory_id=MemoryId(row.id),
                        deleted=row.deleted_at is not None,
                        seq=None if row.seq is None else Seq(row.seq),
                        searchable=applied and row.status == "ready",
                    )
        return found

    def counts(self) -> Counts:
        """Count memories by state, all at one instant."""
        unapplied = (
            select(func.count(func.distinct(index_events.c.memory_id)))
            .join(memories, memories.c.id == index_events.c.memory_id)
            .where(INDEXED, index_events.c.seq > select(index_state.c.applied_seq).scalar_subquery())
        )
        with self._database.snapshot() as connection:
            by_status = {
                (row.status, row.live): row.n
                for row in connection.execute(
                    select(memories.c.status, _LIVE.label("live"), func.count().label("n")).group_by(
                        memories.c.status, _LIVE
                    )
                )
            }
            n_unapplied = connection.scalar(unapplied) or 0
        ready = by_status.get(("ready", True), 0)
        return Counts(
            stored=sum(n for (_, live), n in by_status.items() if live),
            searchable=ready - n_unapplied,
            pending=by_status.get(("pending", True), 0),
            deleted=sum(n for (_, live), n in by_status.items() if not live),
        )

    def _insert_new(self) -> Any:
        dialect = sqlite if self._database.is_sqlite else postgresql
        return dialect.insert(memories).on_conflict_do_nothing().returning(memories.c.id)

    def _one(self, condition: ColumnElement[bool], *, shown: str) -> Memory:
        with self._database.read() as connection:
            row = connection.execute(select(*_MEMORY_COLUMNS).where(condition, _LIVE)).one_or_none()
        if row is None:
            message = f"no live memory with {shown}"
            raise NotFound(message)
        return _memory(row)


def bury(connection: Connection, ids: Sequence[MemoryId]) -> list[MemoryId]:
    """Turn those of `ids` that are live into tombstones: key and dates stay, what was said goes.

    The caller appends the '-' events in the same transaction.
    """
    gone: list[MemoryId] = []
    for some in chunks(sorted(ids)):
        statement = (
            update(memories)
            .where(memories.c.id.in_(some), _LIVE)
            .values(
                deleted_at=database_now(connection),
                content=null(),
                metadata=null(),
                embedding=null(),
                version=memories.c.version + 1,
            )
            .returning(memories.c.id)
        )
        gone.extend(MemoryId(i) for i in connection.scalars(statement))
    for some in chunks(gone):
        touched = or_(associations.c.from_id.in_(some), associations.c.to_id.in_(some))
        connection.execute(delete(associations).where(touched))
    return sorted(gone)


_MEMORY_COLUMNS = (
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


def _raw_values(raw: RawMemory) -> dict[str, Any]:
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


def _memory(row: Row[*tuple[Any, ...]]) -> Memory:
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


def _key_in(keys: Sequence[Key]) -> ColumnElement[bool]:
    return tuple_(memories.c.namespace, memories.c.uid).in_(keys)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield runs of `values` that are short enough for the variables of one statement."""
    for start in range(0, len(values), _KEYS_AT_ONCE):
        yield values[start : start + _KEYS_AT_ONCE]
