"""What must hold after anything: checked against the database itself."""

from __future__ import annotations

from sqlalchemy import func, select

from memory.database import Database
from memory.index_sync import IndexSync
from memory.schema import index_clock, index_events, memories


def assert_events_contiguous(database: Database) -> None:
    """I4: events are numbered without gaps up to the clock."""
    with database.snapshot() as connection:
        head = connection.scalar(select(index_clock.c.head))
        row = connection.execute(
            select(func.count().label("n"), func.min(index_events.c.seq), func.max(index_events.c.seq))
        ).one()
    if row.n:
        assert row[2] == head
        assert row[2] - row[1] + 1 == row.n


def assert_one_row_a_key(database: Database) -> None:
    """I1: a key has one row at most."""
    statement = select(func.count()).select_from(memories).group_by(memories.c.namespace, memories.c.uid)
    with database.snapshot() as connection:
        assert all(n == 1 for n in connection.scalars(statement))


def assert_index_equals_database(sync: IndexSync) -> None:
    """I5: at the head of the log the index holds just the live rows, with the same vectors."""
    comparison = sync.compare()
    assert comparison.equal, comparison
