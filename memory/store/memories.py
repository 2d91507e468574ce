"""SQL on memories. Each change of rows and its index events are one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, and_, delete, func, not_, null, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.errors import NotFound
from memory.models import Memory, MemoryId, MemoryType, Seq
from memory.schema import associations, index_events, index_state, memories, next_embeddings
from memory.store.event_log import append_events, read_head
from memory.store.rows import INDEXED, LIVE, MEMORY_COLUMNS, Key, chunks, key_in, memory_of, raw_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    import numpy.typing as npt
    from sqlalchemy import ColumnElement

    from memory.messages import RawMemory


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One content's embedding. `vector` is float32 (d,), length 1."""

    vector: npt.NDArray[np.float32]
    model_fingerprint: str


class MemoryStore:
    """The memories of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, keys: Iterable[Key]) -> set[Key]:
        """Return those of `keys` that have a row, live or tombstone."""
        found: set[Key] = set()
        with self._database.read() as connection:
            for some in chunks(list(keys)):
                statement = select(memories.c.namespace, memories.c.uid).where(key_in(some))
                found.update((row.namespace, row.uid) for row in connection.execute(statement))
        return found

    def insert(
        self, raws: Sequence[RawMemory], embeddings: npt.NDArray[np.float32], *, model_fingerprint: str
    ) -> tuple[dict[Key, MemoryId], Seq]:
        """Insert memories whose key is new, with their index events, in one transaction.

        Args:
            raws: distinct keys; one that has a row already, tombstone or not, changes nothing.
            embeddings: float32 (len(raws), d), rows of length 1, in the order of `raws`.
            model_fingerprint: the model that made the embeddings.

        Returns:
            The ids of the new rows, and the newest event's number (visible to a search that asks for it).

        Raises:
            ModelMismatch: the database belongs to another model. Nothing was stored.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

        """
        order = sorted(range(len(raws)), key=lambda i: raws[i].key)  # one lock order for all writers
        with self._database.write() as connection:
            at = database_now(connection)
            rows = [
                {
                    **raw_values(raws[i]),
                    "stored_at": at,
                    "embedding": embeddings[i].astype("<f4").tobytes(),
                    "model_fingerprint": model_fingerprint,
                    "status": "ready",
                    "version": 1,
                }
                for i in order
            ]
            inserted = connection.execute(self._insert_new(), rows)
            new = {(row.namespace, row.uid): MemoryId(row.id) for row in inserted}
            if not new:
                return new, read_head(connection)
            ids = sorted(new.values())
            return new, append_events(connection, ids, op="+", model_fingerprint=model_fingerprint)

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

    def buried(self, keys: Iterable[Key]) -> set[Key]:
        """Return those of `keys` that have a tombstone."""
        found: set[Key] = set()
        with self._database.read() as connection:
            for some in chunks(list(keys)):
                statement = select(memories.c.namespace, memories.c.uid).where(key_in(some), not_(LIVE))
                found.update((row.namespace, row.uid) for row in connection.execute(statement))
        return found

    def by_keys(self, keys: Iterable[Key]) -> dict[Key, Memory]:
        """Return those of `keys` that have a live memory."""
        found: dict[Key, Memory] = {}
        with self._database.read() as connection:
            for some in chunks(list(keys)):
                statement = select(*MEMORY_COLUMNS).where(key_in(some), LIVE)
                found.update(((r.namespace, r.uid), memory_of(r)) for r in connection.execute(statement))
        return found

    def live(
        self,
        ids: Sequence[MemoryId],
        *,
        namespace: str | None = None,
        memory_types: Sequence[MemoryType] | None = None,
    ) -> dict[MemoryId, Memory]:
        """Return those of `ids` that are live, in this namespace and of these types where given."""
        conditions = [INDEXED]
        if namespace is not None:
            conditions.append(memories.c.namespace == namespace)
        if memory_types is not None:
            conditions.append(memories.c.type.in_([t.value for t in memory_types]))
        found: dict[MemoryId, Memory] = {}
        with self._database.read() as connection:
            for some in chunks(ids):
                statement = select(*MEMORY_COLUMNS).where(memories.c.id.in_(some), *conditions)
                found.update((MemoryId(r.id), memory_of(r)) for r in connection.execute(statement))
        return found

    def replace(
        self, old: Memory, new: RawMemory, *, embedding: Embedded | None
    ) -> tuple[Memory, Seq] | None:
        """Give a live memory another content, type, source or metadata; its id, key and dates stay.

        Args:
            old: the memory as it was read.
            new: what it is to be.
            embedding: the new content's; `None` where the content stays.

        Returns:
            The memory as it is now, and the newest event's number; `None` if it changed since `old` was
            read, or is gone: then nothing was changed.

        Raises:
            ModelMismatch: the database belongs to another model. Nothing was changed.
            ServerAway: the database cannot be reached. Nothing was changed, or all of it.

        """
        values = raw_values(new)
        for fixed in ("namespace", "uid", "created_at"):
            del values[fixed]
        if embedding is not None:
            values["embedding"] = embedding.vector.astype("<f4").tobytes()
            values["model_fingerprint"] = embedding.model_fingerprint
        same = and_(memories.c.id == old.id, memories.c.version == old.version, LIVE)
        statement = (
            update(memories)
            .where(same)
            .values(version=memories.c.version + 1, **values)
            .returning(*MEMORY_COLUMNS)
        )
        with self._database.write() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            if embedding is not None:
                connection.execute(delete(next_embeddings).where(next_embeddings.c.memory_id == old.id))
            if embedding is None and new.memory_type is old.memory_type:
                return memory_of(row), read_head(connection)
            fingerprint = embedding.model_fingerprint if embedding else None
            seq = append_events(connection, [old.id], op="+", model_fingerprint=fingerprint)
            return memory_of(row), seq

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
                    update(memories).where(memories.c.id.in_(some), LIVE, stale).values(last_access_at=now)
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
                for row in connection.execute(statement.where(key_in(some))):
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
                    select(memories.c.status, LIVE.label("live"), func.count().label("n")).group_by(
                        memories.c.status, LIVE
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
        statement = dialect.insert(memories).on_conflict_do_nothing()
        return statement.returning(memories.c.id, memories.c.namespace, memories.c.uid)

    def _one(self, condition: ColumnElement[bool], *, shown: str) -> Memory:
        with self._database.read() as connection:
            row = connection.execute(select(*MEMORY_COLUMNS).where(condition, LIVE)).one_or_none()
        if row is None:
            message = f"no live memory with {shown}"
            raise NotFound(message)
        return memory_of(row)


def bury(connection: Connection, ids: Sequence[MemoryId]) -> list[MemoryId]:
    """Turn those of `ids` that are live into tombstones: key and dates stay, what was said goes.

    The caller appends the '-' events in the same transaction.
    """
    gone: list[MemoryId] = []
    for some in chunks(sorted(ids)):
        statement = (
            update(memories)
            .where(memories.c.id.in_(some), LIVE)
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
        connection.execute(delete(next_embeddings).where(next_embeddings.c.memory_id.in_(some)))
    return sorted(gone)
