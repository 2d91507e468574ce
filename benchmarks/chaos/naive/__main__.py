"""Runs a naive pipeline: `up worker` or `up indexer` with both servers, under the product's supervisor."""

from __future__ import annotations

import os
import sys

from api_stub.home import RunningStack, announce, hold_home
from api_stub.stack.children import ChildSpec
from api_stub.stack.servers import PostgresServer, RedisServer
from api_stub.stack.supervisor import Supervisor
from benchmarks.chaos.naive import celery_variant, cursor_variant
from benchmarks.chaos.naive.rows import Rows
from memory.heartbeat import Heartbeat
from memory.process import run_process
from memory.settings import Settings

_PROGRAMS = {"worker": celery_variant.work, "indexer": cursor_variant.index}


def main(argv: list[str]) -> int:
    if argv[0] != "up":
        return run_process(argv[0], _PROGRAMS[argv[0]])
    return run_process("up", lambda settings: _up(settings, program=argv[1]))


def _up(settings: Settings, *, program: str) -> int:
    os.umask(0o077)
    redis = RedisServer(settings.home / "redis")
    postgres = PostgresServer(settings.home / "postgres")
    redis.prepare()
    postgres.prepare()
    logs = settings.home / "logs"
    heartbeat = Heartbeat(settings.home, program)
    process = ChildSpec(
        name=program,
        argv=(sys.executable, "-P", "-m", "benchmarks.chaos.naive", program),
        env={"REDIS_URL": redis.url, "MEMORY_DB_URL": postgres.url},
        cwd=settings.home,
        log_path=logs / f"{program}.log",
        is_ready=lambda: heartbeat.age_s() is not None,
    )

    def on_stage_ready(stage: int) -> None:
        if stage == 0:
            postgres.ensure_database()
            Rows(postgres.url).create()
        place = RunningStack(pid=os.getpid(), redis_url=redis.url, db_url=postgres.url, ready=stage == 1)
        announce(settings.home, place)

    servers = [redis.child(logs / "redis.log"), postgres.child(logs / "postgres.log")]
    with hold_home(settings.home):
        supervisor = Supervisor(
            stages=[servers, [process]], say=_say, on_stage_ready=on_stage_ready, longest_pause_s=0.25
        )
        return supervisor.run(on_ready=lambda: _say("ready"))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
