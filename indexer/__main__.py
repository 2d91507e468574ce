"""`python -m indexer`: runs the indexer, with its settings from the environment."""

from __future__ import annotations

import argparse
import sys

from memory.errors import MemorySystemError
from memory.heartbeat import Heartbeat
from memory.settings import read_settings

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h: starting again will not help before something is changed


def main(argv: list[str]) -> int:
    """Run until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m indexer", description=__doc__)
    parser.add_argument("--health", action="store_true", help="exit 0 if the indexer makes progress, else 1")
    arguments = parser.parse_args(argv)
    try:
        settings = read_settings()
        if arguments.health:
            return 0 if Heartbeat(settings.home, "indexer").is_fresh() else 1
        from indexer.app import run_indexer  # noqa: PLC0415 (bad settings are told before seconds of imports)

        run_indexer(settings)
    except MemorySystemError as error:
        sys.stderr.write(f"indexer: {error}\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
