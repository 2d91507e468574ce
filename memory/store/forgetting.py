"""SQL that finds and forgets what is old and unimportant."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, func, select

from memory.database import Database, database_now
from memory.models import NEUTRAL_IMPORTANCE, MemoryId, MemoryType
from memory.schema import memories
from memory.store.event_log import append_events
from memory.store.memories import bury
from memory.store.rows import LIVE

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is forgotten: both older than `max_age` and less important than `min_importance`."""

    max_age: timedelta
    min_importance: float
    memory_types: tuple[MemoryType, ...] | None
    namespace: str | None


class Forgetting:
    """Finds and forgets by a rule, by the database's own clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, rule: Rule) -> Counter[str]:
        """Return how many memories the rule would forget now, by namespace."""
        with self._database.read() as connection:
            condition = _condition(rule, now=database_now(connection))
            statement = (
                select(memories.c.namespace, func.count().label("n"))
                .where(condition)
                .group_by(memories.c.namespace)
            )
            return Counter({row.namespace: row.n for row in connection.execute(statement)})

    def n_live(self, namespace: str) -> int:
        """Return how many live memories a namespace has."""
        statement = select(func.count()).select_from(memories).where(LIVE, memories.c.namespace == namespace)
        with self._database.read() as connection:
            return connection.scalar(statement) or 0

    def forget(self, rule: Rule, *, limit: int) -> int:
        """Forget up to `limit` memories and write their removal events; return how many.

        The rows are locked as they are selected, so the condition still holds when they go; a row that
        somebody else holds is left for the next call.
        """
        with self._database.write() as connection:
            statement = (
                select(memories.c.id)
                .where(_condition(rule, now=database_now(connection)))
                .order_by(memories.c.id)
                .limit(limit)
                .with_for_update(skip_locked=True)  # SQLite, with its one writer, has no need of it
            )
            ids = [MemoryId(i) for i in connection.scalars(statement)]
            gone = bury(connection, ids)
            if gone:
                append_events(connection, gone, op="-")
            return len(gone)


def _condition(rule: Rule, *, now: datetime) -> ColumnElement[bool]:
    importance = func.coalesce(memories.c.importance, NEUTRAL_IMPORTANCE)
    last_use = func.coalesce(memories.c.last_access_at, memories.c.created_at)
    conditions = [LIVE, importance < rule.min_importance, last_use < now - rule.max_age]
    if rule.namespace is not None:
        conditions.append(memories.c.namespace == rule.namespace)
    if rule.memory_types is not None:
        conditions.append(memories.c.type.in_([t.value for t in rule.memory_types]))
    return and_(*conditions)
