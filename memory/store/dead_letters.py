"""SQL on dead letters: memories that can never be stored, with the bytes and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, exists, false, func, literal, not_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.errors import NotFound
from memory.models import MemoryId
from memory.schema import dead_letters, memories
from memory.store.event_log import append_events
from memory.store.memories import bury
from memory.store.rows import KEYS, LIVE, chunks, key_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memory.store.rows import Key

_MAX_REASON = 2000

_REASONS = (
    select(dead_letters.c.namespace, dead_letters.c.uid, dead_letters.c.reason)
    .where(key_in(KEYS, dead_letters))
    .order_by(dead_letters.c.id)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One stream entry that was given up."""

    id: int
    entry_id: str
    namespace: str | None
    uid: str | None
    body: bytes
    reason: str
    n_deliveries: int
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; bytes that are no UTF-8 are shown escaped."""
        return {
            "id": self.id,
            "entry_id": self.entry_id,
            "namespace": self.namespace,
            "uid": self.uid,
            "body": self.body.decode(errors="backslashreplace"),
            "reason": self.reason,
            "n_deliveries": self.n_deliveries,
            "at": self.at.isoformat(),
        }


class DeadLetters:
    """The dead letters of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bury(self, *, entry_id: str, key: Key | None, body: bytes, reason: str, n_deliveries: int) -> None:
        """Keep one entry as a dead letter. Twice the same entry is kept once.

        One whose key has a tombstone is not kept: what was deleted leaves nothing behind. One whose row
        waits for its embedding waits no longer: it failed.
        """
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            values = {
                "entry_id": entry_id,
                "namespace": key[0] if key else None,
                "uid": key[1] if key else None,
                "body": body,
                "reason": _storable(reason),
                "n_deliveries": n_deliveries,
                "at": database_now(connection),
            }
            row = select(*(literal(value, dead_letters.c[name].type) for name, value in values.items()))
            buried = exists().where(key_in([key]), not_(LIVE)) if key else false()
            connection.execute(
                dialect.insert(dead_letters)
                .from_select([*values], row.where(not_(buried)))
                .on_conflict_do_nothing()
            )
            if key:
                _set_status(connection, [key], was="pending", now="failed")

    def count(self) -> int:
        """Return how many there are."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(dead_letters)) or 0

    def list(self, *, limit: int, ids: Sequence[int] | None = None) -> list[DeadLetter]:
        """Return up to `limit` of them, oldest first; only those of `ids` if given."""
        statement = select(dead_letters).order_by(dead_letters.c.id).limit(limit)
        if ids is not None:
            statement = statement.where(dead_letters.c.id.in_(ids))
        with self._database.read() as connection:
            return [DeadLetter(**row) for row in connection.execute(statement).mappings()]

    def get(self, letter_id: int) -> DeadLetter:
        """Return one of them.

        Raises:
            NotFound: there is none with this id.

        """
        found = self.list(limit=1, ids=[letter_id])
        if not found:
            message = f"no dead letter with id {letter_id}"
            raise NotFound(message)
        return found[0]

    def reasons(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Return the newest reason of each of `keys` that is a dead letter."""
        asked = list(keys)
        if not asked:
            return {}
        with self._database.read() as connection:
            rows = connection.execute(_REASONS, {KEYS.key: asked})
            return {(row.namespace, row.uid): row.reason for row in rows}

    def release(self, ids: Sequence[int] | None) -> int:
        """Let go of these, all of them for `None`, since they are tried again; return how many there were."""
        with self._database.write() as connection:
            keys = _remove(connection, ids)
            _set_status(connection, [key for key in keys if key], was="failed", now="pending")
        return len(keys)

    def purge(self, ids: Sequence[int] | None) -> int:
        """Forget these for good, all of them for `None`; return how many there were.

        A row that failed for one of them becomes a tombstone.
        """
        with self._database.write() as connection:
            keys = _remove(connection, ids)
            gone = bury(connection, _ids_of_failed(connection, [key for key in keys if key]))
            if gone:
                append_events(connection, gone, op="-")
        return len(keys)


def _remove(connection: Connection, ids: Sequence[int] | None) -> list[Key | None]:
    """Delete letters; return the key of each, where it has one."""
    columns = (dead_letters.c.namespace, dead_letters.c.uid)
    statement = delete(dead_letters).returning(*columns)
    if ids is None:
        rows = connection.execute(statement).all()
    else:
        rows = [
            r
            for some in chunks(ids)
            for r in connection.execute(statement.where(dead_letters.c.id.in_(some)))
        ]
    return [None if row.uid is None else (row.namespace, row.uid) for row in rows]


def _ids_of_failed(connection: Connection, keys: Sequence[Key]) -> list[MemoryId]:
    found: list[MemoryId] = []
    for some in chunks(keys):
        statement = select(memories.c.id).where(key_in(some), memories.c.status == "failed")
        found.extend(MemoryId(i) for i in connection.scalars(statement))
    return found


def _set_status(connection: Connection, keys: Sequence[Key], *, was: str, now: str) -> None:
    for some in chunks(sorted(keys)):
        connection.execute(
            update(memories)
            .where(key_in(some), LIVE, memories.c.status == was)
            .values(status=now, stored_at=database_now(connection))
        )


def _storable(reason: str) -> str:
    clean = reason.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return clean[:_MAX_REASON]
