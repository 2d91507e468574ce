"""`python -m workers embed|beat`: runs one process, with its settings from the environment."""

from __future__ import annotations

import argparse
import sys

from memory.errors import MemorySystemError
from memory.heartbeat import Heartbeat
from memory.settings import read_settings

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h: starting again will not help before something is changed


def main(argv: list[str]) -> int:
    """Run one process until it is told to stop; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("process", choices=("embed", "beat"))
    parser.add_argument("--name", default="embed-1", help="stable over restarts, different for each worker")
    parser.add_argument("--health", action="store_true", help="exit 0 if that process makes progress, else 1")
    arguments = parser.parse_args(argv)
    try:
        settings = read_settings()
        if arguments.health:
            name = "beat" if arguments.process == "beat" else arguments.name
            return 0 if Heartbeat(settings.home, name).is_fresh() else 1
        if arguments.process == "beat":
            from workers.beat import run_beat  # noqa: PLC0415 (the ticker loads no model)

            run_beat(settings)
        else:
            from workers.app import run_embed_worker  # noqa: PLC0415 (the model's libraries take seconds)

            run_embed_worker(settings, name=arguments.name)
    except MemorySystemError as error:
        sys.stderr.write(f"workers: {error}\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
