"""SQL on memories. Each change of rows and its index events are one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, and_, bindparam, delete, func, not_, null, or_, select, true, update

from memory.database import Database, database_now
from memory.errors import NotFound
from memory.failpoints import reach
from memory.models import Memory, MemoryId, MemoryType, Seq
from memory.schema import associations, index_events, index_state, memories, next_embeddings
from memory.store.candidates import Candidate, read_candidates
from memory.store.conversations import Context, read_contexts
from memory.store.event_log import append_events, read_head
from memory.store.filtering import condition
from memory.store.new_rows import insert_new
from memory.store.pending import embed_rows, read_known
from memory.store.rows import (
    INDEXED,
    KEYS,
    LIVE,
    MEMORY_COLUMNS,
    Key,
    chunks,
    key_in,
    memory_of,
    one_of,
    raw_values,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import timedelta

    import numpy.typing as npt
    from sqlalchemy import ColumnElement, Select

    from memory.filters import Filter
    from memory.messages import RawMemory
    from memory.store.pending import Unembedded
    from memory.store.rows import Embeddings


_LIVE_ONE = select(*MEMORY_COLUMNS).where(LIVE)
_BY_ID = _LIVE_ONE.where(memories.c.id == bindparam("memory_id", type_=memories.c.id.type))
_BY_ID_WITHIN = _BY_ID.where(memories.c.namespace.in_(bindparam("namespaces", expanding=True)))
_BY_UID = _LIVE_ONE.where(memories.c.namespace == bindparam("namespace"), memories.c.uid == bindparam("uid"))

_PROGRESS = select(
    memories.c.id,
    memories.c.namespace,
    memories.c.uid,
    memories.c.deleted_at,
    memories.c.status,
    # As an expression: for the plain column, Postgres walks all events backwards for each memory.
    select(func.max(index_events.c.seq + 0))
    .where(index_events.c.memory_id == memories.c.id)
    .scalar_subquery()
    .label("seq"),
    select(index_state.c.applied_seq).scalar_subquery().label("applied_seq"),
).where(key_in(KEYS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one memory's row has come. `seq` is its newest unpruned event."""

    memory_id: MemoryId
    deleted: bool
    seq: Seq | None
    searchable: bool
    failed: bool  # it cannot be embedded; a dead letter says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many memories are in each state. `stored` are the live ones; `searchable` is a part of them."""

    stored: int
    searchable: int
    pending: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One content's embedding: float32 (w, d), the vectors of its windows, rows of length 1."""

    vectors: npt.NDArray[np.float32]
    model_fingerprint: str


class MemoryStore:
    """The memories of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, keys: Iterable[Key]) -> dict[Key, Unembedded | None]:
        """Return those of `keys` that have a row, live or tombstone, with what is left to embed of it."""
        with self._database.read() as connection:
            return dict(read_known(connection, keys))

    def insert(
        self,
        raws: Sequence[RawMemory],
        embeddings: Embeddings,
        *,
        model_fingerprint: str,
        unembedded: Sequence[Unembedded] = (),
    ) -> tuple[dict[Key, MemoryId], Seq]:
        """Insert memories whose key is new, with their index events, in one transaction.

        Args:
            raws: distinct keys; one that has a row already, tombstone or not, changes nothing.
            embeddings: len(raws) + len(unembedded) of them, in their order.
            model_fingerprint: the model that made the embeddings.
            unembedded: rows that have been waiting for their embedding; one that changed meanwhile waits on.

        Returns:
            The ids of the new rows, and the newest event's number (visible to a search that asks for it).

        Raises:
            ModelMismatch: the database belongs to another model. Nothing was stored.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

        """
        with self._database.write() as connection:
            new: dict[Key, MemoryId] = {}
            if raws:
                new = insert_new(
                    connection,
                    raws,
                    embeddings[: len(raws)],
                    stored_at=database_now(connection),
                    model_fingerprint=model_fingerprint,
                )
            embedded = embed_rows(
                connection, unembedded, embeddings[len(raws) :], model_fingerprint=model_fingerprint
            )
            ids = sorted([*new.values(), *embedded])
            seq = (
                append_events(connection, ids, op="+", model_fingerprint=model_fingerprint)
                if ids
                else read_head(connection)
            )
            reach("embed.before_commit")
        return new, seq

    def get(self, memory_id: MemoryId, *, namespaces: Collection[str] | None = None) -> Memory:
        """Return a live memory by its id.

        With `namespaces`, one of another namespace is to the database what one that does not exist is: it
        reads nothing of it, so that not even the time it takes tells of it.

        Raises:
            NotFound: there is none, or it was deleted, or it is in none of these namespaces.

        """
        values: dict[str, Any] = {"memory_id": memory_id}
        if namespaces is None:
            return self._one(_BY_ID, values, shown=f"id {memory_id}")
        values["namespaces"] = list(namespaces)
        return self._one(_BY_ID_WITHIN, values, shown=f"id {memory_id}")

    def get_by_uid(self, uid: str, *, namespace: str) -> Memory:
        """Return a live memory by its idempotency key.

        Raises:
            NotFound: there is none, or it was deleted.

        """
        values = {"namespace": namespace, "uid": uid}
        return self._one(_BY_UID, values, shown=f"uid {uid!r} in namespace {namespace!r}")

    def within(self, ids: Sequence[MemoryId], namespaces: Collection[str]) -> list[MemoryId]:
        """Return those of `ids` that have a row in any of these namespaces, tombstones too."""
        statement = select(memories.c.id).where(memories.c.namespace.in_(namespaces))
        with self._database.read() as connection:
            return [
                MemoryId(found)
                for some in chunks(ids)
                for found in connection.scalars(statement.where(memories.c.id.in_(some)))
            ]

    def context(self, memory_id: MemoryId, *, before: int, after: int) -> list[Memory]:
        """Return a live memory with its neighbours in its conversation, in their order.

        Raises:
            NotFound: there is no live memory with this id.

        """
        found = self.contexts([memory_id], before=before, after=after).get(memory_id)
        if found is None:
            message = f"no live memory with id {memory_id}"
            raise NotFound(message)
        return [*found.before, found.memory, *found.after]

    def contexts(self, ids: Sequence[MemoryId], *, before: int, after: int) -> dict[MemoryId, Context]:
        """Return those of `ids` that are live, each with what stands around it, as `read_contexts` says."""
        return read_contexts(self._database, ids, before=before, after=after)

    def buried(self, keys: Iterable[Key]) -> set[Key]:
        """Return those of `keys` that have a tombstone."""
        statement = select(memories.c.namespace, memories.c.uid).where(key_in(keys), not_(LIVE))
        with self._database.read() as connection:
            return {(row.namespace, row.uid) for row in connection.execute(statement)}

    def by_keys(self, keys: Iterable[Key]) -> dict[Key, Memory]:
        """Return those of `keys` that have a live memory."""
        statement = select(*MEMORY_COLUMNS).where(key_in(keys), LIVE)
        with self._database.read() as connection:
            return {(row.namespace, row.uid): memory_of(row) for row in connection.execute(statement)}

    def live(self, ids: Sequence[MemoryId], *conditions: ColumnElement[bool]) -> dict[MemoryId, Memory]:
        """Return those of `ids` that are live, embedded, and meet the conditions."""
        statement = select(*MEMORY_COLUMNS).where(one_of(memories.c.id, ids), INDEXED, *conditions)
        with self._database.read() as connection:
            return {MemoryId(row.id): memory_of(row) for row in connection.execute(statement)}

    def page(
        self,
        namespace: str,
        memory_types: Sequence[MemoryType] | None,
        where: Filter | None,
        *,
        after: MemoryId | None,
        limit: int,
    ) -> list[Memory]:
        """Return the first live memories that meet the conditions, embedded or not, newest first.

        Args:
            namespace: whose.
            memory_types: only these types, if given.
            where: only what meets this filter, if given.
            after: only those that are older than this one: its id is the cursor of the next page.
            limit: how many at most.

        """
        before = [] if after is None else [memories.c.id < after]
        statement = (
            select(*MEMORY_COLUMNS)
            .where(LIVE, memories.c.namespace == namespace, *before, *self._narrowed(memory_types, where))
            .order_by(memories.c.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [memory_of(row) for row in connection.execute(statement)]

    def conditions(
        self, namespace: str, memory_types: Sequence[MemoryType] | None, where: Filter | None
    ) -> list[ColumnElement[bool]]:
        """Return the conditions that a row is of a namespace, and of these types and meets a filter if given.

        They are for rows whose ids are known: they do not let Postgres go by its index of namespaces.
        """
        # As an expression: without statistics of a new table Postgres takes the column for the best way to a
        # few ids, and reads all of a namespace.
        found: list[ColumnElement[bool]] = [memories.c.namespace.concat("") == namespace]
        return found + self._narrowed(memory_types, where)

    def ids_that(
        self, namespace: str, memory_types: Sequence[MemoryType] | None, where: Filter | None
    ) -> npt.NDArray[np.int64]:
        """Return the ids of all live, embedded memories that meet the same conditions, int64, ascending."""
        statement = (
            select(memories.c.id)
            .where(INDEXED, memories.c.namespace == namespace, *self._narrowed(memory_types, where))
            .order_by(memories.c.id)
        )
        with self._database.read() as connection:
            return np.fromiter(connection.scalars(statement), dtype=np.int64)

    def candidates(
        self, ids: Sequence[MemoryId], *conditions: ColumnElement[bool]
    ) -> dict[MemoryId, Candidate]:
        """Return the same as `live`, each with its embedding."""
        with self._database.read() as connection:
            return read_candidates(connection, ids, *conditions)

    def replace(
        self, old: Memory, new: RawMemory, *, embedding: Embedded | None
    ) -> tuple[Memory, Seq] | None:
        """Give a live memory another content, type, source or metadata; its id, key and dates stay.

        Args:
            old: the memory as it was read.
            new: what it is to be.
            embedding: the new content's; `None` where the content stays, or where the pipeline is to embed
                it: until then no search finds the memory.

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
        is_reworded = new.content != old.content
        if embedding is not None:
            values["embedding"] = embedding.vectors.astype("<f4").tobytes()
            values["model_fingerprint"] = embedding.model_fingerprint
            values["status"] = "ready"
        elif is_reworded:
            values |= {"embedding": null(), "model_fingerprint": null(), "status": "pending"}
        same = and_(memories.c.id == old.id, memories.c.version == old.version, LIVE)
        statement = (
            update(memories)
            .where(same)
            .values(version=memories.c.version + 1, **values)
            .returning(*MEMORY_COLUMNS)
        )
        with self._database.write() as connection:
            if is_reworded:
                statement = statement.values(stored_at=database_now(connection))
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            if is_reworded:
                connection.execute(delete(next_embeddings).where(next_embeddings.c.memory_id == old.id))
            if not is_reworded and _filed_under(new) == _filed_under(old):
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
        found: dict[Key, Progress] = {}
        with self._database.read() as connection:
            for row in connection.execute(_PROGRESS, {KEYS.key: list(keys)}):
                applied = row.seq is None or row.seq <= row.applied_seq
                found[row.namespace, row.uid] = Progress(
                    memory_id=MemoryId(row.id),
                    deleted=row.deleted_at is not None,
                    seq=None if row.seq is None else Seq(row.seq),
                    searchable=applied and row.status == "ready",
                    failed=row.status == "failed",
                )
        return found

    def counts(self, *, namespace: str | None = None) -> Counts:
        """Count memories by state, all at one instant; of one namespace if given."""
        whose = true() if namespace is None else memories.c.namespace == namespace
        unapplied = (
            select(func.count(func.distinct(index_events.c.memory_id)))
            .join(memories, memories.c.id == index_events.c.memory_id)
            .where(INDEXED, whose, index_events.c.seq > select(index_state.c.applied_seq).scalar_subquery())
        )
        with self._database.snapshot() as connection:
            by_status = {
                (row.status, row.live): row.n
                for row in connection.execute(
                    select(memories.c.status, LIVE.label("live"), func.count().label("n"))
                    .where(whose)
                    .group_by(memories.c.status, LIVE)
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

    def _narrowed(
        self, memory_types: Sequence[MemoryType] | None, where: Filter | None
    ) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if memory_types is not None:
            found.append(memories.c.type.in_([t.value for t in memory_types]))
        if where is not None:
            found.append(condition(where, is_sqlite=self._database.is_sqlite))
        return found

    def _one(self, statement: Select[Any], values: dict[str, Any], *, shown: str) -> Memory:
        with self._database.read() as connection:
            row = connection.execute(statement, values).one_or_none()
        if row is None:
            message = f"no live memory with {shown}"
            raise NotFound(message)
        return memory_of(row)


def _filed_under(memory: Memory | RawMemory) -> tuple[str, ...]:
    """Return what the index has of a memory beside its content."""
    told = (repr(memory.metadata.get(name)) for name in ("author", "position"))  # True is no position, 1 is
    return memory.memory_type, memory.source, *told


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
                position=null(),
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
