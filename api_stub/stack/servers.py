"""The two servers of the local stack: how each is prepared, reached, started and asked if it is ready."""

from __future__ import annotations

import functools
import json
import signal
from pathlib import Path
from typing import Literal

import psycopg

from api_stub.stack.binaries import PostgresBinaries, find_postgres, find_redis, within_reach
from api_stub.stack.children import ChildSpec
from api_stub.stack.kept import kept_password, kept_port, write_private
from api_stub.stack.leftover import wait_until_gone
from api_stub.stack.postgres_data import SUPERUSER, make_data, refuse_other_version
from api_stub.stack.probes import postgres_answers, redis_answers
from api_stub.stack.unprivileged import give_to, open_the_way, postgres_user

_HOST = "127.0.0.1"
_DATABASE = "memory"
_LEFTOVER_TIMEOUT_S = 60.0
# Reading a long log again after a crash takes its time; a server that does it must not be killed for it.
_SERVER_START_TIMEOUT_S = 600.0
_CONNECT_TIMEOUT_S = 10

_POSTGRES_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "30",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_error_verbosity": "terse",  # the context of an error quotes the row
}


class RedisServer:
    """A Redis-protocol server whose files all lie in `directory`. It keeps every write it acknowledged."""

    def __init__(
        self,
        directory: Path,
        *,
        appendfsync: Literal["everysec", "always"] = "everysec",
        maxmemory_bytes: int | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._data = self._directory / "data"
        self._appendfsync = appendfsync
        self._maxmemory_bytes = maxmemory_bytes

    def prepare(self) -> None:
        """Write what a start needs. Waits for a server left over here. Raises SettingsError."""
        find_redis()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._data.mkdir(mode=0o700, exist_ok=True)
        wait_until_gone(pid_file=self._directory / "pid", works_in=self._data, timeout_s=_LEFTOVER_TIMEOUT_S)
        kept_port(self._directory / "port")
        kept_password(self._directory / "password")
        write_private(self._directory / "redis.conf", text=self._configuration())

    @property
    def url(self) -> str:
        """Where clients connect. Needs `prepare` to have run once, in any process."""
        return f"redis://:{self._password}@{_HOST}:{self._port}/0"

    def child(self, log_path: Path) -> ChildSpec:
        """Return how to run it. Needs `prepare`."""
        return ChildSpec(
            name="redis",
            argv=(str(find_redis()), str(self._directory / "redis.conf")),
            cwd=self._data,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGTERM,
            log_path=log_path,
            is_ready=functools.partial(redis_answers, port=self._port, password=self._password),
            start_timeout_s=_SERVER_START_TIMEOUT_S,
        )

    @property
    def _port(self) -> int:
        return int((self._directory / "port").read_text())

    @property
    def _password(self) -> str:
        return (self._directory / "password").read_text().strip()

    def _configuration(self) -> str:
        settings = {
            "bind": _HOST,
            "port": str(self._port),
            "requirepass": self._password,
            "protected-mode": "yes",
            "daemonize": "no",
            "pidfile": json.dumps(str(self._directory / "pid"), ensure_ascii=False),
            "dir": json.dumps(str(self._data), ensure_ascii=False),
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "no-appendfsync-on-rewrite": "no",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        if self._maxmemory_bytes is not None:
            settings["maxmemory"] = str(self._maxmemory_bytes)
        return "".join(f"{name} {value}\n" for name, value in settings.items())


class PostgresServer:
    """A Postgres server whose files all lie in `directory`, with one database named `memory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._data = self._directory / "data"

    def prepare(self) -> None:
        """Make the data directory unless it is there. Waits for a server left over here.

        Raises SettingsError when this machine can't run Postgres here, or not with these data.
        """
        find_postgres()
        if user := postgres_user():
            open_the_way(self._directory, user=user)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        binaries = self._binaries()
        wait_until_gone(
            pid_file=self._data / "postmaster.pid", works_in=self._data, timeout_s=_LEFTOVER_TIMEOUT_S
        )
        password = kept_password(self._directory / "password")
        if not self._data.exists():
            make_data(self._data, binaries=binaries, user=user, password=password)
        refuse_other_version(self._data, binaries=binaries)
        if user:
            give_to(self._data, user=user)
        kept_port(self._directory / "port")

    @property
    def url(self) -> str:
        """Where SQLAlchemy connects. Needs `prepare` to have run once, in any process."""
        return f"postgresql+psycopg://{SUPERUSER}:{self._password}@{_HOST}:{self._port}/{_DATABASE}"

    def child(self, log_path: Path) -> ChildSpec:
        """Return how to run it. Needs `prepare`."""
        settings = {**_POSTGRES_SETTINGS, "port": str(self._port)}
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        return ChildSpec(
            name="postgres",
            argv=(str(self._binaries().postgres), "-D", str(self._data), *options),
            env={"LC_ALL": "C"},
            cwd=self._data,
            run_as=postgres_user(),
            # SIGINT ends the sessions and shuts down at once; SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            log_path=log_path,
            is_ready=functools.partial(postgres_answers, self._conninfo(database="postgres")),
            start_timeout_s=_SERVER_START_TIMEOUT_S,
        )

    def ensure_database(self) -> None:
        """Create the database unless it is there. The server must be ready."""
        with psycopg.connect(
            self._conninfo(database="postgres"), autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
        ) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).rowcount:
                connection.execute(f"CREATE DATABASE {_DATABASE}")

    def _binaries(self) -> PostgresBinaries:
        return within_reach(find_postgres(), user=postgres_user(), directory=self._directory)

    @property
    def _port(self) -> int:
        return int((self._directory / "port").read_text())

    @property
    def _password(self) -> str:
        return (self._directory / "password").read_text().strip()

    def _conninfo(self, *, database: str) -> str:
        return psycopg.conninfo.make_conninfo(
            host=_HOST,
            port=self._port,
            user=SUPERUSER,
            password=self._password,
            dbname=database,
            sslmode="disable",
        )
