"""Supervise Redis, Postgres and a child that ignores SIGTERM: `whole_stack HOME STOP_TIMEOUT_S`."""

from __future__ import annotations

import sys
from pathlib import Path

from api_stub.stack.servers import PostgresServer, RedisServer
from api_stub.stack.supervisor import Supervisor
from tests.pipeline.processes import python_child

STUBBORN = """
import pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("refused").touch())
pathlib.Path("stubborn").touch()
while True:
    signal.pause()
"""


def main(home: Path, stop_timeout_s: float) -> int:
    redis, postgres = RedisServer(home / "redis"), PostgresServer(home / "postgres")
    redis.prepare()
    postgres.prepare()
    supervisor = Supervisor(
        stages=[
            [redis.child(home / "redis.log"), postgres.child(home / "postgres.log")],
            [python_child("stubborn", STUBBORN, home=home)],
        ],
        say=lambda line: print(line, flush=True),
        on_stage_ready=lambda index: postgres.ensure_database() if index == 0 else None,
        stop_timeout_s=stop_timeout_s,
    )
    return supervisor.run(on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
