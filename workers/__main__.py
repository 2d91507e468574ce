"""`python -m workers embed|beat`: runs one process, with its settings from the environment."""

from __future__ import annotations

import argparse
import socket
import sys

from memory.heartbeat import Heartbeat
from memory.process import run_process
from memory.settings import Settings


def main(argv: list[str]) -> int:
    """Run one process until it is told to stop; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("process", choices=("embed", "beat"))
    parser.add_argument(
        "--name",
        default=f"embed-{socket.gethostname()}",
        help="stable over restarts, different for each embed worker",
    )
    parser.add_argument("--health", action="store_true", help="exit 0 if that process makes progress, else 1")
    arguments = parser.parse_args(argv)
    name = "beat" if arguments.process == "beat" else arguments.name
    if arguments.health:
        return run_process(name, lambda settings: 0 if _is_healthy(settings, name=name) else 1)
    return run_process(name, _beat if name == "beat" else lambda settings: _embed(settings, name=name))


def _is_healthy(settings: Settings, *, name: str) -> bool:
    if name == "beat":
        return Heartbeat(settings.home, name).is_fresh()
    from memory.health import is_healthy  # noqa: PLC0415 (only this needs the database)

    return is_healthy(settings, name=name, part="ingest")


def _beat(settings: Settings) -> int:
    from workers.beat import run_beat  # noqa: PLC0415 (the ticker loads no model)

    run_beat(settings)
    return 0


def _embed(settings: Settings, *, name: str) -> int:
    from workers.app import run_embed_worker  # noqa: PLC0415 (the model's libraries take seconds)

    return run_embed_worker(settings, name=name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
