"""What every process of ours does at its edge: read settings, run, and say why it ended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memory.errors import MemorySystemError, Recoverable
from memory.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_AWAY = 75
"""A server is away: start again in a moment. EX_TEMPFAIL of sysexits.h."""

EXIT_REFUSED = 78
"""Starting again will not help before something is changed. EX_CONFIG of sysexits.h."""


def run_process(name: str, run: Callable[[Settings], int]) -> int:
    """Run with the settings of the environment; return the exit code. Our errors become one line."""
    try:
        return run(read_settings())
    except Recoverable as error:
        sys.stderr.write(f"{name}: {error}\n")
        return EXIT_AWAY
    except MemorySystemError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return EXIT_REFUSED
