"""SQL that looks for what the code never does to rows and events, and mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import and_, delete, exists, func, not_, null, or_, select, update

from memory.database import Database, database_now
from memory.models import MemoryId, Seq
from memory.schema import associations, index_clock, index_events, index_state, memories, next_embeddings
from memory.store.event_log import append_events
from memory.store.rows import INDEXED, LIVE, chunks
from memory.store.vectors import end_of_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    import numpy.typing as npt
    from sqlalchemy import ColumnElement, Connection

    Ids = npt.NDArray[np.int64]

_SERVING_MODEL = select(index_clock.c.model_fingerprint).scalar_subquery()
_SERVES = and_(
    next_embeddings.c.memory_id == memories.c.id, next_embeddings.c.model_fingerprint == _SERVING_MODEL
)
_EMBEDDING = func.coalesce(next_embeddings.c.embedding, memories.c.embedding)
_MODEL = func.coalesce(next_embeddings.c.model_fingerprint, memories.c.model_fingerprint)
_FULL = or_(
    memories.c.content.is_not(null()),
    memories.c.metadata.is_not(null()),
    memories.c.embedding.is_not(null()),
)
_LINKS = or_(associations.c.from_id == memories.c.id, associations.c.to_id == memories.c.id)
_HAS_NEXT = select(next_embeddings.c.memory_id).where(next_embeddings.c.memory_id == memories.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDefects:
    """The ids of rows that are not as they must be."""

    full_tombstones: list[int]
    linked_tombstones: list[int]  # with associations
    embedded_tombstones: list[int]  # with an embedding of the next model
    without_vector: list[int]  # ready, and what is stored cannot be a vector
    of_another_model: list[int]
    pending_too_long: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDefects:
    """Event numbers that must be there and are not, and such that must not be there and are."""

    head: Seq
    missing: Ids
    above_head: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVector:
    """A row's vector as it is stored, whole or not."""

    memory_id: MemoryId
    embedding: bytes | None
    model_fingerprint: str | None


class Auditing:
    """Looks at every row of one database, a page at a time, and mends what it is told to."""

    def __init__(self, database: Database, *, page: int = 10_000) -> None:
        self._database = database
        self._page = page

    def rows(self, *, dim: int, pending_since: timedelta, pause: Callable[[], None]) -> RowDefects:
        """Look at every row there is by now; `pause` is called between two pages, outside of transactions."""
        found: dict[str, list[int]] = {name: [] for name in RowDefects.__slots__}
        after, newest = 0, self._newest()  # rows that come meanwhile would keep it going for ever
        while after < newest:
            with self._database.read() as connection:
                last = end_of_page(connection, after=after, page=self._page) or newest
                defects = _defects(dim=dim, pending_before=database_now(connection) - pending_since)
                for row in connection.execute(_rows_with(defects, after=after, last=last)):
                    for name in defects:
                        if getattr(row, name):
                            found[name].append(row.id)
            after = last
            pause()
        return RowDefects(**found)

    def log(self) -> LogDefects:
        """Look at the events: without gaps from the newest snapshot, or the oldest event, up to the clock."""
        with self._database.snapshot() as connection:
            head = connection.scalar(select(index_clock.c.head)) or 0
            saved = connection.scalar(select(index_state.c.snapshot_seq)) or 0
            statement = select(index_events.c.seq).order_by(index_events.c.seq)
            there = np.asarray(connection.scalars(statement).all(), dtype=np.int64)
        known = there[there <= head]
        first = min(int(known[0]), saved + 1) if len(known) else saved + 1
        wanted = np.arange(first, head + 1, dtype=np.int64)
        return LogDefects(
            head=Seq(head),
            missing=np.setdiff1d(wanted, known, assume_unique=True),
            above_head=there[there > head],
        )

    def send_back(
        self,
        ids: Sequence[int],
        *,
        is_damaged: Callable[[StoredVector], bool],
        keep: Callable[[list[StoredVector]], object],
    ) -> int:
        """Let memories be embedded again whose vector is damaged still; return how many.

        Args:
            ids: those to look at.
            is_damaged: the judge, by the row as it is now, locked.
            keep: is given what is about to be taken out of the rows, before the commit.

        """
        n = 0
        for some in chunks(sorted(ids)):
            with self._database.write() as connection:
                locked = [row for row in _locked(connection, some) if is_damaged(row)]
                if locked:
                    keep(locked)
                    _set_pending(connection, [row.memory_id for row in locked])
                n += len(locked)
        return n

    def empty_tombstones(self, ids: Sequence[int]) -> int:
        """Take from deleted memories what should have gone with them; return from how many."""
        n = 0
        for some in chunks(sorted(ids)):
            with self._database.write() as connection:
                dead = _dead(connection, some)
                connection.execute(
                    update(memories)
                    .where(memories.c.id.in_(dead))
                    .values(content=null(), metadata=null(), embedding=null())
                )
                touched = or_(associations.c.from_id.in_(dead), associations.c.to_id.in_(dead))
                connection.execute(delete(associations).where(touched))
                connection.execute(delete(next_embeddings).where(next_embeddings.c.memory_id.in_(dead)))
                n += len(dead)
        return n

    def _newest(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(select(func.max(memories.c.id))) or 0

    def raise_head(self) -> None:
        """Let the clock stand at the newest event there is: the next one gets a number of its own."""
        newest = select(func.max(index_events.c.seq)).scalar_subquery()
        with self._database.write() as connection:
            connection.execute(update(index_clock).where(index_clock.c.head < newest).values(head=newest))

    def drop_saved_events(self) -> None:
        """Drop the events that are in the newest snapshot, gaps among them: no other one is left."""
        saved = select(index_state.c.snapshot_seq).scalar_subquery()
        with self._database.write() as connection:
            connection.execute(delete(index_events).where(index_events.c.seq <= saved))


def _defects(*, dim: int, pending_before: datetime) -> Mapping[str, ColumnElement[bool]]:
    n_bytes = func.length(_EMBEDDING)
    whole = and_(_EMBEDDING.is_not(null()), n_bytes > 0, n_bytes % (4 * dim) == 0)
    mine = and_(_MODEL.is_not(null()), _MODEL == _SERVING_MODEL)
    return {
        "full_tombstones": and_(not_(LIVE), _FULL),
        "linked_tombstones": and_(not_(LIVE), exists(select(associations.c.id).where(_LINKS))),
        "embedded_tombstones": and_(not_(LIVE), exists(_HAS_NEXT.correlate(memories))),
        "without_vector": and_(INDEXED, not_(whole)),
        "of_another_model": and_(INDEXED, not_(mine)),
        "pending_too_long": and_(LIVE, memories.c.status == "pending", memories.c.stored_at < pending_before),
    }


def _rows_with(defects: Mapping[str, ColumnElement[bool]], *, after: int, last: int) -> Any:
    return (
        select(memories.c.id, *(condition.label(name) for name, condition in defects.items()))
        .outerjoin_from(memories, next_embeddings, _SERVES)
        .where(memories.c.id > after, memories.c.id <= last, or_(*defects.values()))
        .order_by(memories.c.id)
    )


def _locked(connection: Connection, ids: Sequence[int]) -> Iterator[StoredVector]:
    rows = select(memories.c.id).where(memories.c.id.in_(ids), INDEXED).order_by(memories.c.id)
    locked = connection.scalars(rows.with_for_update()).all()
    stored = (
        select(memories.c.id, _EMBEDDING.label("embedding"), _MODEL.label("model"))
        .outerjoin_from(memories, next_embeddings, _SERVES)
        .where(memories.c.id.in_(locked))
        .order_by(memories.c.id)
    )
    for row in connection.execute(stored):
        yield StoredVector(memory_id=MemoryId(row.id), embedding=row.embedding, model_fingerprint=row.model)


def _set_pending(connection: Connection, ids: Sequence[MemoryId]) -> None:
    connection.execute(
        update(memories)
        .where(memories.c.id.in_(ids))
        .values(
            embedding=null(),
            model_fingerprint=null(),
            status="pending",
            stored_at=database_now(connection),  # waits from now on
            version=memories.c.version + 1,
        )
    )
    connection.execute(delete(next_embeddings).where(next_embeddings.c.memory_id.in_(ids)))
    append_events(connection, ids, op="+")


def _dead(connection: Connection, ids: Sequence[int]) -> list[int]:
    statement = select(memories.c.id).where(memories.c.id.in_(ids), not_(LIVE)).order_by(memories.c.id)
    return list(connection.scalars(statement.with_for_update()))
