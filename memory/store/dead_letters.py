"""SQL on dead letters: memories that can never be stored, with the bytes and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.schema import dead_letters
from memory.store.rows import chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memory.store.rows import Key

_MAX_REASON = 2000


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
        """Keep one entry as a dead letter. Twice the same entry is kept once."""
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            connection.execute(
                dialect.insert(dead_letters)
                .values(
                    entry_id=entry_id,
                    namespace=key[0] if key else None,
                    uid=key[1] if key else None,
                    body=body,
                    reason=_storable(reason),
                    n_deliveries=n_deliveries,
                    at=database_now(connection),
                )
                .on_conflict_do_nothing()
            )

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

    def reasons(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Return the newest reason of each of `keys` that is a dead letter."""
        wanted = list(keys)
        found: dict[Key, str] = {}
        with self._database.read() as connection:
            for some in chunks(wanted):
                same = tuple_(dead_letters.c.namespace, dead_letters.c.uid).in_(some)
                statement = select(dead_letters).where(same).order_by(dead_letters.c.id)
                found.update(((r.namespace, r.uid), r.reason) for r in connection.execute(statement))
        return found

    def remove(self, ids: Sequence[int] | None) -> int:
        """Forget these, all of them for `None`; return how many there were."""
        statement = delete(dead_letters)
        if ids is not None:
            statement = statement.where(dead_letters.c.id.in_(ids))
        with self._database.write() as connection:
            return connection.execute(statement).rowcount


def _storable(reason: str) -> str:
    clean = reason.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return clean[:_MAX_REASON]
