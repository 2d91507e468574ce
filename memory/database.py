"""The database connection: Postgres or SQLite behind the same three kinds of transaction."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from memory.errors import ServerAway

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIGRATION_LOCK = 0x6D656D6F7279  # any constant number; "memory" in ASCII

_POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s -c timezone=UTC",
}


class Database:
    """One database, by URL. Safe to share between threads; not across a fork."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.shown_url = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(parsed, connect_args={"timeout": 30})
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(
                parsed, connect_args=_POSTGRES_OPTIONS, pool_pre_ping=True, pool_size=4, pool_recycle=1800
            )

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that changes rows; committed at the end, rolled back on any error.

        Raises:
            ServerAway: the database cannot be reached, or gave up for now (deadlock, lock timeout).

        """
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads; each statement sees the newest committed rows.

        Raises:
            ServerAway: the database cannot be reached.

        """
        with self._reading() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a reading transaction in which every statement sees the same instant.

        Raises:
            ServerAway: the database cannot be reached.

        """
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._reading(**options) as connection:
            yield connection

    def upgrade(self) -> None:
        """Bring the tables to this version's form, creating them where there are none. One at a time."""
        config = migrations_config()
        newest = ScriptDirectory.from_config(config).get_current_head()
        if self.revision() == newest:
            return
        with self.write() as connection:
            if not self.is_sqlite:
                # Kept until commit; SQLite's own write lock does the same.
                connection.execute(text("SET LOCAL lock_timeout = '120s'"))
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revision(self) -> str | None:
        """Return the migration this database is at, `None` for an empty one."""
        with self.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _reading(self, **options: Any) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as plain:
            connection = plain.execution_options(only_reads=True, **options)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            message = f"database {self.shown_url}: {_first_line(error)}"
            raise ServerAway(message) from error
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            message = f"database {self.shown_url}: connection lost"
            raise ServerAway(message) from error


def migrations_config() -> Config:
    """Return Alembic's configuration for the migrations shipped with this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def database_now(connection: Connection) -> datetime:
    """Return the database's own clock, aware UTC: one clock for all processes.

    It is the wall clock, not the transaction's start.
    """
    if connection.dialect.name == "sqlite":
        shown = connection.scalar(text("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(shown)).replace(tzinfo=UTC)
    now: datetime = connection.scalar(select(func.clock_timestamp())) or datetime.now(UTC)
    return now.astimezone(UTC)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail when another wrote in between.
    reads = connection.get_execution_options().get("only_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
