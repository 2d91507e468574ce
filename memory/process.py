"""What every process of ours does at its edge: read settings, run, and say why it ended.

Exit codes are those of sysexits.h, by their names in `os`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from memory.errors import MemorySystemError, Recoverable
from memory.failpoints import arm
from memory.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable


def run_process(name: str, run: Callable[[Settings], int]) -> int:
    """Run with the settings of the environment; return the exit code. Our errors become one line."""
    try:
        settings = read_settings()
        arm(settings.failpoints)
        return run(settings)
    except Recoverable as error:
        sys.stderr.write(f"{name}: {error}\n")
        return os.EX_TEMPFAIL  # a server is away: start again in a moment
    except MemorySystemError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return os.EX_CONFIG  # starting again will not help before something is changed
