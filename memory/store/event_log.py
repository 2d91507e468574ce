"""The outbox: index events in commit order, and how far the owner of the index has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    and_,
    cast,
    delete,
    false,
    func,
    insert,
    literal,
    select,
    update,
)

from memory.database import Database, database_now
from memory.errors import Fenced, ModelMismatch
from memory.models import Identity, MemoryId, Seq
from memory.schema import index_clock, index_events, index_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

Op = Literal["+", "-"]

_APPLIED = select(index_state.c.applied_seq)

SEEN_WITHIN = timedelta(minutes=1)
"""An owner that wrote anything within this time lives."""


class IndexEvent(NamedTuple):
    """One change of one memory: "look at this row again". As a tuple, since there is one for each memory."""

    seq: Seq
    memory_id: MemoryId


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexProgress:
    """What the owner of the index last said of itself, and the newest event."""

    head: Seq
    applied_seq: Seq
    epoch: int
    owner: str | None
    snapshot: str | None
    snapshot_seq: Seq
    snapshot_at: datetime | None
    updated_at: datetime | None
    oldest_unapplied_at: datetime | None


def append_events(
    connection: Connection,
    memory_ids: Sequence[MemoryId],
    *,
    op: Op,
    model_fingerprint: str | None = None,
) -> Seq:
    """Number and write one event a memory; return the last number.

    Call it last in the transaction that changed the rows: it takes the clock's row lock, so
    numbers are gap-free and in commit order, and it is held only until the commit that follows.

    Args:
        connection: the transaction.
        memory_ids: the rows that changed.
        op: '+' for rows that are there, '-' for rows that are gone.
        model_fingerprint: the model of the embeddings that the transaction wrote, if it wrote any.

    Raises:
        ModelMismatch: the database belongs to another model, perhaps since a moment ago.

    """
    clock = connection.execute(
        update(index_clock)
        .where(index_clock.c.id == 1)
        .values(head=index_clock.c.head + len(memory_ids))
        .returning(index_clock.c.head, index_clock.c.model_fingerprint)
    ).one()
    if (
        None not in {model_fingerprint, clock.model_fingerprint}
        and model_fingerprint != clock.model_fingerprint
    ):
        raise ModelMismatch(stored=clock.model_fingerprint, configured=str(model_fingerprint))
    if memory_ids:
        _insert_events(connection, memory_ids, op=op, first=clock.head - len(memory_ids) + 1)
    return Seq(clock.head)


def _insert_events(connection: Connection, memory_ids: Sequence[MemoryId], *, op: Op, first: int) -> None:
    at = database_now(connection)
    if connection.dialect.name == "sqlite":
        rows = [{"seq": first + i, "memory_id": m, "op": op, "at": at} for i, m in enumerate(memory_ids)]
        connection.execute(insert(index_events), rows)
        return
    ids = func.unnest(cast(list(memory_ids), ARRAY(BigInteger)))
    numbered = ids.table_valued("memory_id", with_ordinality="n", name="numbered").render_derived()
    seq = literal(first - 1, BigInteger) + numbered.c.n
    select_rows = select(seq, numbered.c.memory_id, literal(op), literal(at))
    columns = ["seq", "memory_id", "op", "at"]
    connection.execute(insert(index_events).from_select(columns, select_rows))


class EventLog:
    """Reads the outbox and keeps the owner's place in it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def head(self) -> Seq:
        """Return the newest event's number, 0 before the first."""
        with self._database.read() as connection:
            return read_head(connection)

    def applied_seq(self) -> Seq:
        """Return the newest event that the owner has applied: what every search sees."""
        with self._database.read() as connection:
            return Seq(connection.scalar(_APPLIED) or 0)

    def identity(self) -> Identity | None:
        """Return what this database's vectors belong to; `None` before a model was claimed."""
        with self._database.read() as connection:
            return read_identity(connection)

    def claim_model(self, *, fingerprint: str, dim: int) -> Identity:
        """Make this the model of the database, or check that it is.

        Raises:
            ModelMismatch: the stored vectors come from another model.

        """
        with self._database.write() as connection:
            connection.execute(
                update(index_clock)
                .where(index_clock.c.model_fingerprint.is_(None))
                .values(model_fingerprint=fingerprint, model_dim=dim)
            )
            identity = read_identity(connection)
        if identity is None or identity.model_fingerprint != fingerprint:
            stored = identity.model_fingerprint if identity else None
            raise ModelMismatch(stored=stored, configured=fingerprint)
        return identity

    def after(self, seq: Seq, *, limit: int) -> list[IndexEvent]:
        """Return up to `limit` events newer than `seq`, oldest first."""
        statement = (
            select(index_events.c.seq, index_events.c.memory_id)
            .where(index_events.c.seq > seq)
            .order_by(index_events.c.seq)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return list(map(IndexEvent._make, rows))

    def mark(self, seq: Seq) -> str | None:
        """Return what tells an event from another history's of the same number; `None` where it is pruned."""
        statement = select(index_events.c.memory_id, index_events.c.at).where(index_events.c.seq == seq)
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        return f"memory {row.memory_id} at {row.at.isoformat()}" if row else None

    def progress(self) -> IndexProgress:
        """Return what the owner last said, and the newest event's number."""
        oldest = (
            select(func.min(index_events.c.at))
            .where(index_events.c.seq == index_state.c.applied_seq + 1)
            .scalar_subquery()
        )
        statement = select(index_clock.c.head, index_state, oldest.label("oldest")).where(
            index_state.c.id == index_clock.c.id
        )
        with self._database.read() as connection:
            row = connection.execute(statement).one()
        return IndexProgress(
            head=Seq(row.head),
            applied_seq=Seq(row.applied_seq),
            epoch=row.epoch,
            owner=row.owner,
            snapshot=row.snapshot,
            snapshot_seq=Seq(row.snapshot_seq),
            snapshot_at=row.snapshot_at,
            updated_at=row.updated_at,
            oldest_unapplied_at=row.oldest,
        )

    def take_over(self, *, owner: str, applied_seq: Seq, spare: str | None = None) -> int | None:
        """Become the owner of the index: every earlier epoch is fenced from now on. Return the epoch.

        Args:
            owner: who this is.
            applied_seq: the last event in its index.
            spare: an owner whose name begins so, and who showed itself within the last minute, stays
                owner; then `None` is returned.

        """
        with self._database.write() as connection:
            now = database_now(connection)
            free = index_state.c.id == 1
            if spare is not None:
                named = index_state.c.owner.startswith(spare, autoescape=True)
                alive = and_(named, index_state.c.updated_at > now - SEEN_WITHIN)
                free = and_(free, func.coalesce(alive, false()).is_(false()))
            epoch: int | None = connection.scalar(
                update(index_state)
                .where(free)
                .values(epoch=index_state.c.epoch + 1, owner=owner, applied_seq=applied_seq, updated_at=now)
                .returning(index_state.c.epoch)
            )
        return epoch

    def publish_applied(self, seq: Seq, *, epoch: int) -> None:
        """Say that the index holds every change up to `seq`.

        Raises:
            Fenced: a later epoch owns the index.

        """
        with self._database.write() as connection:
            _update_state(connection, epoch=epoch, values={"applied_seq": seq})

    def commit_snapshot(self, *, name: str, seq: Seq, prune_to: Seq, epoch: int) -> None:
        """Record a snapshot that is safely on disk, and drop the events that no kept snapshot needs.

        Args:
            name: the snapshot's directory.
            seq: the last event in it.
            prune_to: the last event in the oldest snapshot that is kept.
            epoch: the owner's.

        Raises:
            Fenced: a later epoch owns the index. Nothing was changed.

        """
        with self._database.write() as connection:
            at = database_now(connection)
            values = {"snapshot": name, "snapshot_seq": seq, "snapshot_at": at}
            _update_state(connection, epoch=epoch, values=values)
            connection.execute(delete(index_events).where(index_events.c.seq <= prune_to))


def read_head(connection: Connection) -> Seq:
    """Return the newest event's number as this transaction sees it."""
    return Seq(connection.scalar(select(index_clock.c.head)) or 0)


def read_identity(connection: Connection) -> Identity | None:
    """Return what this database's vectors belong to, as this transaction sees it."""
    row = connection.execute(select(index_clock)).one()
    if row.model_fingerprint is None:
        return None
    return Identity(lineage=row.lineage, model_fingerprint=row.model_fingerprint, dim=row.model_dim)


def _update_state(connection: Connection, *, epoch: int, values: dict[str, object]) -> None:
    result = connection.execute(
        update(index_state)
        .where(index_state.c.id == 1, index_state.c.epoch == epoch)
        .values(updated_at=database_now(connection), **values)
    )
    if result.rowcount != 1:
        message = f"epoch {epoch} no longer owns the index"
        raise Fenced(message)
