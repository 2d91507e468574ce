"""Real servers for a whole test run, and a fresh database on them for each test."""

from __future__ import annotations

import contextlib
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from api_stub.stack.children import ChildSpec, spawn, stop
from api_stub.stack.servers import PostgresServer, RedisServer
from memory.database import Database
from tests.waiting import wait_until

_TEMPLATE = "template_memory"


@contextlib.contextmanager
def running_server(spec: ChildSpec) -> Iterator[None]:
    """Run one server until the end of the block."""
    process = spawn(spec)
    try:
        assert spec.is_ready is not None
        wait_until(spec.is_ready, timeout_s=60, why=f"{spec.name} answers")
        yield
    finally:
        stop(process, spec, timeout_s=20)


@contextlib.contextmanager
def running_redis(home: Path) -> Iterator[str]:
    """Run Redis; gives its URL."""
    server = RedisServer(home / "redis")
    server.prepare()
    with running_server(server.child(home / "redis.log")):
        yield server.url


@dataclass(frozen=True)
class Postgres:
    """A running Postgres that makes databases in a moment, by cloning a migrated one."""

    url: str

    def new_database(self) -> str:
        """Make a migrated, empty database of its own; return its URL."""
        return self._create(template=_TEMPLATE)

    def database_without_tables(self) -> str:
        """Make a database of its own that nothing was ever done to; return its URL."""
        return self._create(template="template1")

    def make_template(self) -> None:
        """Migrate once; every test's database is a copy."""
        self._execute(f"CREATE DATABASE {_TEMPLATE}")
        database = Database(self._url(_TEMPLATE))
        database.upgrade()
        database.close()

    def _create(self, *, template: str) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def _execute(self, statement: str) -> None:
        plain = self._url("postgres").replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


@contextlib.contextmanager
def running_postgres(home: Path) -> Iterator[Postgres]:
    """Run Postgres with a template database. It is stopped without a checkpoint: all is thrown away."""
    server = PostgresServer(home / "postgres")
    server.prepare()
    spec = server.child(home / "postgres.log")
    with running_server(replace(spec, stop_signal=signal.SIGQUIT)):
        postgres = Postgres(url=server.url)
        postgres.make_template()
        yield postgres
