"""SQL on memories that have a row and no embedding yet: `pending`, or `failed` where it could not be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, and_, bindparam, case, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.models import Memory, MemoryId
from memory.schema import memories
from memory.store.rows import LIVE, MEMORY_COLUMNS, Key, chunks, key_in, memory_of, raw_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from memory.messages import RawMemory
    from memory.store.rows import Embeddings

_UNEMBEDDED = and_(LIVE, memories.c.status != "ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unembedded:
    """What is to be embedded, of which version of the memory."""

    memory_id: MemoryId
    version: int
    content: str


class PendingRows:
    """The memories of one database that wait for their embedding."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, raws: Sequence[RawMemory]) -> None:
        """Store memories whose key is new, to be embedded later. They are in no index yet.

        Raises:
            ServerAway: the database cannot be reached. All were stored, or none.

        """
        dialect = sqlite if self._database.is_sqlite else postgresql
        first = {raw.key: raw for raw in reversed(raws)}
        with self._database.write() as connection:
            fixed = {"stored_at": database_now(connection), "status": "pending", "version": 1}
            rows = [{**raw_values(first[key]), **fixed} for key in sorted(first)]  # one lock order for all
            connection.execute(dialect.insert(memories).on_conflict_do_nothing(), rows)

    def waiting(self, *, longer_than: timedelta, limit: int) -> list[Memory]:
        """Return up to `limit` memories that have waited for so long, the oldest first."""
        with self._database.read() as connection:
            since = database_now(connection) - longer_than
            statement = (
                select(*MEMORY_COLUMNS)
                .where(LIVE, memories.c.status == "pending", memories.c.stored_at < since)
                .order_by(memories.c.stored_at, memories.c.id)
                .limit(limit)
            )
            return [memory_of(row) for row in connection.execute(statement)]

    def wait_anew(self, ids: Sequence[MemoryId]) -> None:
        """Count their waiting from now on."""
        with self._database.write() as connection:
            now = database_now(connection)
            for some in chunks(sorted(ids)):
                statement = update(memories).where(memories.c.id.in_(some), memories.c.status == "pending")
                connection.execute(statement.values(stored_at=now))


def read_known(connection: Connection, keys: Iterable[Key]) -> Iterator[tuple[Key, Unembedded | None]]:
    """Yield those of `keys` that have a row, live or tombstone, with what is left to embed of it."""
    content = case((_UNEMBEDDED, memories.c.content), else_=null())
    columns = (memories.c.namespace, memories.c.uid, memories.c.id, memories.c.version)
    for row in connection.execute(select(*columns, content.label("content")).where(key_in(keys))):
        left = (
            None
            if row.content is None
            else Unembedded(memory_id=MemoryId(row.id), version=row.version, content=row.content)
        )
        yield (row.namespace, row.uid), left


def embed_rows(
    connection: Connection,
    unembedded: Sequence[Unembedded],
    embeddings: Embeddings,
    *,
    model_fingerprint: str,
) -> list[MemoryId]:
    """Give rows their embeddings; return which. One that changed meanwhile, or is embedded, stays as it is.

    The embeddings stand in the order of `unembedded`. The caller appends the '+' events in
    the same transaction.
    """
    wanted = {
        some.memory_id: (some.version, vector) for some, vector in zip(unembedded, embeddings, strict=True)
    }
    still: list[MemoryId] = []
    for some in chunks(sorted(wanted)):
        statement = select(memories.c.id, memories.c.version).where(memories.c.id.in_(some), _UNEMBEDDED)
        locked = connection.execute(statement.order_by(memories.c.id).with_for_update())
        still.extend(MemoryId(row.id) for row in locked if row.version == wanted[row.id][0])
    if still:
        connection.execute(
            update(memories)
            .where(memories.c.id == bindparam("row_id"))
            .values(
                embedding=bindparam("vector"),
                model_fingerprint=model_fingerprint,
                status="ready",
            ),
            [{"row_id": i, "vector": wanted[i][1].astype("<f4").tobytes()} for i in still],
        )
    return still
