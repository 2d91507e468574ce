"""`python -m indexer`: runs the indexer, with its settings from the environment."""

from __future__ import annotations

import argparse
import sys

from memory.process import run_process
from memory.settings import Settings

NAME = "indexer"


def main(argv: list[str]) -> int:
    """Run until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m indexer", description=__doc__)
    parser.add_argument("--health", action="store_true", help="exit 0 if the indexer makes progress, else 1")
    arguments = parser.parse_args(argv)
    if arguments.health:
        return run_process(NAME, lambda settings: 0 if _is_healthy(settings) else 1)
    return run_process(NAME, _index)


def _is_healthy(settings: Settings) -> bool:
    from memory.health import is_healthy  # noqa: PLC0415 (only this needs the database)

    return is_healthy(settings, name=NAME, part="index")


def _index(settings: Settings) -> int:
    from indexer.app import run_indexer  # noqa: PLC0415 (bad settings are told before seconds of imports)

    return run_indexer(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
