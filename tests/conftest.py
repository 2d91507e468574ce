"""What every test can ask for."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from memory.database import Database
from memory.stream import IngestStream
from tests.servers import Postgres, running_postgres, running_redis


@pytest.fixture(scope="session", autouse=True)
def _stop_signals_are_heard() -> None:
    """A run started in the background, or by nohup, ignores some signals, and so would all its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the test's own, which any user may walk through but only its owner may list."""
    with _new_home() as directory:
        yield directory


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """The same for all tests of a file, for what takes long to make."""
    with _new_home() as directory:
        yield directory


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis for the whole run. A test that fills it empties it first: see `stream`."""
    with _new_home() as directory, running_redis(directory) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real Postgres for the whole run."""
    with _new_home() as directory, running_postgres(directory) as server:
        yield server


@pytest.fixture(params=["postgres", "sqlite"])
def database_url(request: pytest.FixtureRequest, home: Path) -> str:
    """A fresh database, once on Postgres and once on SQLite."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_database()
    return f"sqlite:///{home / 'memories.db'}"


@pytest.fixture(params=["postgres", "sqlite"])
def new_url(request: pytest.FixtureRequest, home: Path) -> str:
    """A database that nothing was ever done to; on SQLite not even its directory is there."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database_without_tables()
    return f"sqlite:///{home / 'new' / 'memories.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database, on Postgres and on SQLite."""
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def stream(redis_url: str) -> Iterator[IngestStream]:
    """Empty ingest streams on a real Redis."""
    connection = redis.Redis.from_url(redis_url)
    connection.flushall()
    connection.close()
    stream = IngestStream(redis_url)
    stream.ensure_groups()
    yield stream
    stream.close()


@contextlib.contextmanager
def _new_home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="memory-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
