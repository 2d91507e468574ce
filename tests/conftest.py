"""What every test can ask for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from memory.database import Database
from memory.logs import log_as_a_library
from memory.stream import IngestStream
from tests.servers import Postgres, running_postgres, running_redis

# A busy machine must not fail a property test by its slowness.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

_LONGEST = {"test_chaos.py", "test_memory_manager.py", "test_pipeline.py"}


@pytest.hookimpl(tryfirst=True)  # before the marks are read, in this same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of one file, on one database, run in one process: they share what takes long to start.

    Those of the doors share one stack over their files. The longest begin first, so that no process waits for
    another one at the end.
    """
    for item in items:
        database = next((f"-{p}" for p in ("postgres", "sqlite") if f"[{p}" in item.name), "")
        room = item.path.parent.name
        group = room if room == "doors" else f"{room}.{item.path.stem}{database}"
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _stop_signals_are_heard() -> None:
    """A run started in the background, or by nohup, ignores some signals, and so would all its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _logs_are_a_librarys() -> None:
    """`capture_logs` would count as the program's own configuration, which prints on standard output."""
    log_as_a_library()


@pytest.fixture(scope="session", autouse=True)
def _models_are_prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared models are shared by all tests, in all processes: each test has a home of its own."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    before = os.environ.get("EMBEDDING_CACHE")
    os.environ["EMBEDDING_CACHE"] = str(shared / "models")
    yield
    if before is None:
        del os.environ["EMBEDDING_CACHE"]
    else:
        os.environ["EMBEDDING_CACHE"] = before


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
