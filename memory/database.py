"""The database connection: Postgres or SQLite behind the same three kinds of transaction."""

from __future__ import annotations

import functools
import json
import os
import re
import sqlite3
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from memory.errors import ServerAway, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MIGRATION_LOCK = 0x6D656D6F7279  # any constant number; "memory" in ASCII


def _whole(text: str) -> int | float:
    """Return what a whole number in Postgres' JSON was: it writes 1e300 out, digit by digit."""
    number = int(text) if len(text) <= 20 else float(text)
    return number if abs(number) < 2**63 else float(number)


_JSON = json.JSONDecoder(parse_int=_whole)


def _read_json(data: str | bytes) -> object:
    return _JSON.decode(data if isinstance(data, str) else data.decode())


# SQLite's primary result codes, see https://sqlite.org/rescode.html.
_CANNOT_OPEN = frozenset({3, 8, 14})  # PERM, READONLY, CANTOPEN: the file system says why
_NO_DATABASE = {26: "is not a SQLite database", 11: "is a damaged SQLite database"}  # NOTADB, CORRUPT
_USABLE_FILE = (
    "must be a SQLite file, or a new one, that this user may read and write, in a directory that it may write"
)

_IDLE_S = 1.0
_BUSY_TIMEOUT_S = 30
_LOOK_AGAIN_S = 0.01
_SQLITE_PRAGMAS = (
    "synchronous=FULL",
    f"busy_timeout={_BUSY_TIMEOUT_S * 1000}",
    "foreign_keys=ON",
    "secure_delete=ON",  # what was said does not stay behind in the file's free pages
)

_POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    # Compiling a statement takes longer than any of ours runs.
    "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s -c timezone=UTC -c jit=off",
}


class Database:
    """One database, by URL. Safe to share between threads; not across a fork.

    Every transaction raises ServerAway where the database is away for now. Until one has succeeded, a
    SQLite file that can never be used is a SettingsError; later on, that too is an outage, which somebody
    may mend.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.shown_url = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._file = Path(parsed.database) if self.is_sqlite and parsed.database else None
        self._has_worked = False
        if self.is_sqlite:
            self._engine = create_engine(
                parsed, connect_args={"timeout": _BUSY_TIMEOUT_S}, hide_parameters=True
            )
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            self._engine = create_engine(
                parsed,
                connect_args=_POSTGRES_OPTIONS,
                pool_size=4,
                pool_recycle=1800,
                json_deserializer=_read_json,
                hide_parameters=True,  # in errors, which are logged: they are what memories say
            )
            _ping_when_idle(self._engine)

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
        # In Postgres each statement by itself: a transaction around it costs two more round trips.
        options = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self._reading(**options) as connection:
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

    def upgrade(self) -> str | None:
        """Bring the tables to this version's form, creating them where there are none. One at a time.

        Returns the revision it was at, `None` for an empty one. Only this creates a SQLite file's directory.

        Raises:
            SettingsError: a newer version made it, or it is a file that can never be used; says what to do.
            ServerAway: the database cannot be reached.

        """
        self._prepare_file()
        found = self.revision()
        known = known_revisions()
        if found == known[-1]:
            return found
        with self.write() as connection:
            if not self.is_sqlite:
                # Kept until commit; SQLite's own write lock does the same.
                connection.execute(text("SET LOCAL lock_timeout = '120s'"))
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            found = _revision(connection)
            if found is not None and found not in known:
                raise SettingsError(self._of_a_newer_version(found, known=known))
            config = migrations_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return found

    def revision(self) -> str | None:
        """Return the revision this database is at, `None` for an empty one."""
        with self.read() as connection:
            return _revision(connection)

    def exists(self) -> bool:
        """Return whether the SQLite file is there; a server's database is taken to be."""
        return self._file is None or os.path.exists(self._file)

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
        except PoolTimeout as error:
            raise ServerAway(f"database {self.shown_url}: {_first_line(error)}") from error
        except DBAPIError as error:
            if _lacks_a_table(error):
                message = (
                    f"database {self.shown_url}: lacks tables of this version; make them: memory db upgrade"
                )
                raise SettingsError(message) from error
            if not self._has_worked and (reason := self._never_usable(error)):
                raise self._bad_file(reason) from error
            if isinstance(error, OperationalError | InterfaceError) or _sqlite_code(error) in _NO_DATABASE:
                raise ServerAway(f"database {self.shown_url}: {_first_line(error)}") from error
            if not error.connection_invalidated:
                raise
            raise ServerAway(f"database {self.shown_url}: connection lost") from error
        self._has_worked = True

    def _prepare_file(self) -> None:
        """Make a SQLite file's directory. Raises SettingsError where it is no place for a database."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cause = f"directory {self._file.parent} cannot be made ({error.strerror})"
            raise self._bad_file(cause) from error
        if reason := _problem_with_file(self._file):  # of one that may only be read, reading would not tell
            raise self._bad_file(reason)

    def _never_usable(self, error: DBAPIError) -> str | None:
        """Say why the SQLite file can never be used, `None` where that may pass or this is no file."""
        code = _sqlite_code(error)
        if self._file is None or code is None:
            return None
        if code in _NO_DATABASE:
            return f"{self._file} {_NO_DATABASE[code]}"
        if code in _CANNOT_OPEN:
            return _problem_with_file(self._file) or _problem_with_directory(self._file.parent)
        return None

    def _bad_file(self, reason: str) -> SettingsError:
        return SettingsError(f"MEMORY_DB_URL = {self.shown_url}: {reason}; {_USABLE_FILE}")

    def _of_a_newer_version(self, found: str, *, known: Sequence[str]) -> str:
        return (
            f"MEMORY_DB_URL = {self.shown_url}: the database is at revision {found}, of a newer version; "
            f"this version knows {', '.join(known)}: run the newer one, or name another database"
        )


@functools.cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that this version can upgrade to, the oldest first."""
    scripts = ScriptDirectory.from_config(migrations_config()).walk_revisions()
    return tuple(script.revision for script in scripts)[::-1]


def migrations_config() -> Config:
    """Return Alembic's configuration for the migrations shipped with this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


@contextmanager
def driver_connection(connection: Connection) -> Iterator[Any]:
    """Give the driver's own connection, in the same transaction, for what SQLAlchemy has no words for.

    Its errors are raised as SQLAlchemy's, and a lost connection is told to the pool.
    """
    driver_errors: Any = connection.dialect.loaded_dbapi.Error
    driver = connection.connection.driver_connection
    try:
        yield driver
    except driver_errors as error:
        is_lost = connection.dialect.is_disconnect(error, driver, None)
        if is_lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            None,
            None,
            error,
            driver_errors,
            connection_invalidated=is_lost,
            dialect=connection.dialect,
        ) from error


def database_now(connection: Connection) -> datetime:
    """Return the database's own clock, aware UTC: one clock for all processes.

    It is the wall clock, not the transaction's start.
    """
    if connection.dialect.name == "sqlite":
        shown = connection.scalar(text("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(shown)).replace(tzinfo=UTC)
    now: datetime = connection.scalar(select(func.clock_timestamp())) or datetime.now(UTC)
    return now.astimezone(UTC)


def _ping_when_idle(engine: Engine) -> None:
    """Let the pool try a connection that nobody used for a second, and replace one that is lost.

    At each use, as `pool_pre_ping` does it, that would cost a search half a millisecond. One that is lost
    within a second of its last use fails once, as it would in the middle of a transaction.
    """

    def used(_driver: object, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    def wanted(driver: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", float("inf")) < _IDLE_S:
            return
        try:
            engine.dialect.do_ping(driver)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    event.listen(engine, "checkin", used)
    event.listen(engine, "checkout", wanted)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    _use_wal(connection)


def _use_wal(connection: Any) -> None:
    """Turn the write-ahead log on. Where several do that to a new file, SQLite itself does not wait."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail when another wrote in between.
    reads = connection.get_execution_options().get("only_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _lacks_a_table(error: DBAPIError) -> bool:
    """Whether a table or column is not there: the database is empty, or of an older version."""
    if getattr(error.orig, "sqlstate", None) in {"42P01", "42703"}:  # undefined_table, undefined_column
        return True
    return _sqlite_code(error) is not None and bool(re.match(r"no such (table|column): ", _first_line(error)))


def _sqlite_code(error: DBAPIError) -> int | None:
    """Return SQLite's primary result code, `None` for another database's error."""
    extended = getattr(error.orig, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


def _problem_with_file(file: Path) -> str | None:
    if os.path.isdir(file):
        return f"{file} is a directory"
    if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK):
        return f"this user may not both read and write {file}"
    return None


def _problem_with_directory(directory: Path) -> str | None:
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"this user may not write in {directory}, where SQLite keeps its log"
    return None


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
