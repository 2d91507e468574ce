"""The local stack: which servers and processes a MEMORY_HOME runs, in which order."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from api_stub.home import RunningStack, announce
from api_stub.stack.children import ChildSpec
from api_stub.stack.cores import n_embed_threads
from api_stub.stack.probes import http_answers
from api_stub.stack.servers import PostgresServer, RedisServer
from api_stub.stack.supervisor import Supervisor
from api_stub.stack.watched import LONGEST_PAUSE_S
from memory.database import Database
from memory.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Servers:
    redis: RedisServer | None  # None: one is named in the environment
    postgres: PostgresServer | None
    redis_url: str
    db_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The modules that the processes run, each with its first arguments."""

    embed: tuple[str, ...] = ("workers", "embed")
    indexer: tuple[str, ...] = ("indexer",)
    beat: tuple[str, ...] = ("workers", "beat")


def local_stack(
    settings: Settings,
    *,
    n_embed_workers: int,
    say: Callable[[str], None],
    programs: Programs = Programs(),
    longest_pause_s: float = LONGEST_PAUSE_S,
    api_port: int | None = None,
) -> Supervisor:
    """Prepare servers and processes, without starting any; the supervisor starts them.

    Stage 0 are the servers, stage 1 the processes. When stage 0 is ready, the database is created and
    migrated and the stack is announced in MEMORY_HOME; when stage 1 is, it is announced as ready.

    Args:
        settings: those of `memory up`.
        n_embed_workers: how many processes embed.
        say: gets the news, line by line.
        programs: what the processes run.
        longest_pause_s: before the start of one that dies again and again.
        api_port: where the HTTP API is to answer, on loopback; `None` for no API.

    Raises:
        SettingsError: a server cannot run here; says why and what to do.

    """
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    servers = _servers(settings)
    logs = home / "logs"
    logs.mkdir(exist_ok=True)

    def on_stage_ready(stage: int) -> None:
        if stage == 0:
            if servers.postgres:
                servers.postgres.ensure_database()
            database = Database(servers.db_url)
            database.upgrade()
            database.close()
        announce(
            home,
            RunningStack(
                pid=os.getpid(), redis_url=servers.redis_url, db_url=servers.db_url, ready=stage == 1
            ),
        )

    processes = _processes(settings, servers, programs=programs, n_embed_workers=n_embed_workers, logs=logs)
    if api_port is not None:
        processes.append(_api(settings, servers, port=api_port, logs=logs))
    return Supervisor(
        stages=[_server_specs(servers, logs), processes],
        say=say,
        on_stage_ready=on_stage_ready,
        longest_pause_s=longest_pause_s,
    )


def _servers(settings: Settings) -> _Servers:
    appendfsync: Literal["always", "everysec"] = "always" if settings.durability == "fsync" else "everysec"
    redis = None if settings.redis_url else RedisServer(settings.home / "redis", appendfsync=appendfsync)
    postgres = None if settings.db_url else PostgresServer(settings.home / "postgres")
    if redis:
        redis.prepare()
    if postgres:
        postgres.prepare()
    return _Servers(
        redis=redis,
        postgres=postgres,
        redis_url=settings.redis_url or (redis.url if redis else ""),
        db_url=settings.db_url or (postgres.url if postgres else ""),
    )


def _server_specs(servers: _Servers, logs: Path) -> list[ChildSpec]:
    specs = []
    if servers.redis:
        specs.append(servers.redis.child(logs / "redis.log"))
    if servers.postgres:
        specs.append(servers.postgres.child(logs / "postgres.log"))
    return specs


def _processes(
    settings: Settings, servers: _Servers, *, programs: Programs, n_embed_workers: int, logs: Path
) -> list[ChildSpec]:
    n_threads = str(n_embed_threads(settings, n_workers=n_embed_workers))
    environment = {
        "MEMORY_HOME": str(settings.home),
        "FAISS_INDEX_PATH": str(settings.index_directory),
        "REDIS_URL": servers.redis_url,
        "MEMORY_DB_URL": servers.db_url,
        "MEMORY_EMBED_THREADS": n_threads,
        "PYTHONUNBUFFERED": "1",
    }
    commands: dict[str, tuple[str, ...]] = {
        f"embed-{n}": (*programs.embed, "--name", f"embed-{n}") for n in range(1, n_embed_workers + 1)
    }
    commands |= {"indexer": programs.indexer, "beat": programs.beat}
    # What computes beside the model follows: each worker is alone on its cores.
    threads = {"OMP_NUM_THREADS": n_threads, "RAYON_NUM_THREADS": n_threads}
    return [
        _process(
            name,
            command,
            environment={**environment, **(threads if name.startswith("embed-") else {})},
            home=settings.home,
            logs=logs,
        )
        for name, command in commands.items()
    ]


def _api(settings: Settings, servers: _Servers, *, port: int, logs: Path) -> ChildSpec:
    return ChildSpec(
        name="api",
        argv=(sys.executable, "-P", "-m", "api_stub.commands.app", "api", "--port", str(port)),
        env={
            "MEMORY_HOME": str(settings.home),
            "REDIS_URL": servers.redis_url,
            "MEMORY_DB_URL": servers.db_url,
            "PYTHONUNBUFFERED": "1",
        },
        cwd=settings.home,
        log_path=logs / "api.log",
        is_ready=lambda: http_answers(port=port, path="/healthz"),
    )


def _process(
    name: str, command: tuple[str, ...], *, environment: dict[str, str], home: Path, logs: Path
) -> ChildSpec:
    heartbeat = Heartbeat(home, name)
    heartbeat.forget()
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-P", "-m", *command),
        env=environment,
        cwd=home,
        log_path=logs / f"{name}.log",
        is_ready=lambda: heartbeat.age_s() is not None,
        start_timeout_s=180,
    )
