"""The migrations build just the tables that the code expects, on both databases."""

from __future__ import annotations

import threading

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from memory.database import Database
from memory.schema import index_clock, metadata


def test_migrated_tables_are_the_tables_of_the_schema(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    before = database.revision()
    database.upgrade()
    assert database.revision() == before == "0002"


def test_many_processes_may_migrate_an_empty_database_at_once(database_url: str) -> None:
    errors: list[BaseException] = []

    def upgrade() -> None:
        mine = Database(database_url)
        try:
            mine.upgrade()
        except BaseException as error:  # noqa: BLE001 (a thread's error must reach the test)
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    mine = Database(database_url)
    with mine.read() as connection:
        assert connection.execute(select(index_clock.c.head)).all() == [(0,)]
    mine.close()
