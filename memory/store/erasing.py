"""SQL that erases chosen memories: their rows, their dead letters, and the way back for what is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, delete, func, select, text, true
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.models import MemoryId, MemoryType, Seq
from memory.schema import dead_letters, memories
from memory.store.event_log import append_events
from memory.store.memories import bury
from memory.store.rows import LIVE, Key, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory.messages import Label
    from memory.selector import Selector

_ROWS_AT_ONCE = 1000
_LETTERS_AT_ONCE = 100  # a body may be a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is needed to search for a memory by its own words."""

    memory_id: MemoryId
    namespace: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What a dead letter says of whose memory it was: its own columns, and its bytes."""

    id: int
    namespace: str | None
    uid: str | None
    body: bytes


class Erasing:
    """Erases in one database, in batches: killed between two of them, the next call does the rest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keys(self, ids: Sequence[MemoryId]) -> set[Key]:
        """Return the keys of the rows of these ids, live and tombstones alike."""
        found: set[Key] = set()
        with self._database.read() as connection:
            for some in chunks(ids):
                statement = select(memories.c.namespace, memories.c.uid).where(memories.c.id.in_(some))
                found.update((row.namespace, row.uid) for row in connection.execute(statement))
        return found

    def has_any(self, chosen: Selector) -> bool:
        """Whether any of these memories has, or had, a row."""
        with self._database.read() as connection:
            return any(
                connection.scalar(select(memories.c.id).where(condition).limit(1)) is not None
                for condition in _conditions(chosen)
            )

    def newest_id(self) -> MemoryId:
        """Return the highest id of a row that is there, 0 before the first."""
        with self._database.read() as connection:
            return MemoryId(connection.scalar(select(func.max(memories.c.id))) or 0)

    def live_ids(self, chosen: Selector, *, until: MemoryId | None = None) -> list[MemoryId]:
        """Return the live ones of these memories, embedded or not, ascending; none newer than `until`."""
        old_enough = true() if until is None else memories.c.id <= until
        found: list[MemoryId] = []
        with self._database.read() as connection:
            for condition in _conditions(chosen):
                statement = select(memories.c.id).where(condition, LIVE, old_enough).order_by(memories.c.id)
                found.extend(MemoryId(i) for i in connection.scalars(statement))
        return found

    def samples(self, ids: Sequence[MemoryId]) -> list[Sample]:
        """Return what is needed to search for those of `ids` that are live."""
        columns = (memories.c.id, memories.c.namespace, memories.c.content)
        found: list[Sample] = []
        with self._database.read() as connection:
            for some in chunks(ids):
                statement = select(*columns).where(memories.c.id.in_(some), LIVE)
                found.extend(
                    Sample(memory_id=MemoryId(row.id), namespace=row.namespace, content=row.content)
                    for row in connection.execute(statement)
                )
        return found

    def bury(self, ids: Sequence[MemoryId], chosen: Selector) -> tuple[int, Seq | None]:
        """Turn those of `ids` that are live, and still chosen, into tombstones, with their removal events.

        Nothing is skipped: a row that somebody holds is waited for. Returns how many there were, and the
        last event's number.

        Raises:
            ServerAway: the database cannot be reached, or a row was held for too long. What is done is done.

        """
        n_buried, seq = 0, None
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            with self._database.write() as connection:
                locked: list[MemoryId] = []
                for some in chunks(ids[start : start + _ROWS_AT_ONCE]):
                    same = and_(memories.c.id.in_(some), LIVE, _named(chosen))
                    statement = select(memories.c.id).where(same).order_by(memories.c.id).with_for_update()
                    locked.extend(MemoryId(i) for i in connection.scalars(statement))
                if gone := bury(connection, locked):
                    n_buried += len(gone)
                    seq = append_events(connection, gone, op="-")
        return n_buried, seq

    def take_keys(self, labels: Sequence[Label]) -> None:
        """Put a tombstone where a key has no row yet: a worker that has the memory in hand finds it taken.

        One that is just storing it is waited for; then its row is there.
        """
        by_key = {label.key: label for label in labels if label.key}
        if not by_key:
            return
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            now = database_now(connection)
            rows: list[dict[str, Any]] = [
                {
                    "namespace": key[0],
                    "uid": key[1],
                    "type": MemoryType.EPISODIC.value,  # a tombstone is of some type; nobody asks which
                    "source": by_key[key].source or "",
                    "created_at": now,
                    "stored_at": now,
                    "deleted_at": now,
                    "status": "ready",
                    "version": 1,
                }
                for key in sorted(by_key)  # one lock order for all writers
            ]
            connection.execute(dialect.insert(memories).on_conflict_do_nothing(), rows)

    def wait_for_letters(self) -> None:
        """Wait until who is writing a dead letter has done so. After this none is written for a taken key."""
        with self._database.write() as connection:  # which on SQLite is alone
            if not self._database.is_sqlite:
                connection.execute(text("LOCK TABLE dead_letters IN SHARE ROW EXCLUSIVE MODE"))

    def letters(self) -> Iterator[list[Letter]]:
        """Yield all dead letters, oldest first, in pages."""
        columns = (dead_letters.c.id, dead_letters.c.namespace, dead_letters.c.uid, dead_letters.c.body)
        statement = select(*columns).order_by(dead_letters.c.id).limit(_LETTERS_AT_ONCE)
        after = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(statement.where(dead_letters.c.id > after)).mappings().all()
            if not rows:
                return
            yield [Letter(**row) for row in rows]
            after = rows[-1]["id"]

    def remove_letters(self, ids: Sequence[int]) -> int:
        """Forget these dead letters; return how many there were."""
        n_removed = 0
        with self._database.write() as connection:
            for some in chunks(ids):
                statement = delete(dead_letters).where(dead_letters.c.id.in_(some))
                n_removed += connection.execute(statement).rowcount
        return n_removed


def _conditions(chosen: Selector) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together select the chosen rows: ids are too many for one."""
    if not chosen.ids:
        yield _named(chosen)
    for some in chunks(chosen.ids):
        yield memories.c.id.in_(some)


def _named(chosen: Selector) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if chosen.namespace is not None:
        conditions.append(memories.c.namespace == chosen.namespace)
    if chosen.source is not None:
        conditions.append(memories.c.source == chosen.source)
    return and_(*conditions)
