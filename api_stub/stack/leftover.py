"""A server that a killed stack left behind for a moment: wait until it has gone."""

from __future__ import annotations

import time
from pathlib import Path

from memory.errors import SettingsError

_LOOK_EVERY_S = 0.05


def wait_until_gone(*, pid_file: Path, works_in: Path, timeout_s: float) -> None:
    """Wait for the process named in `pid_file` to end. Raises SettingsError when it is still there.

    A process whose working directory is not `works_in` merely got the number of one that has long ended.
    """
    deadline = time.monotonic() + timeout_s
    while (pid := _pid_of_runner(pid_file=pid_file, works_in=works_in)) is not None:
        if time.monotonic() >= deadline:
            raise SettingsError(
                f"process {pid} still serves {works_in}: stop it, or set MEMORY_HOME to another directory"
            )
        time.sleep(_LOOK_EVERY_S)


def _pid_of_runner(*, pid_file: Path, works_in: Path) -> int | None:
    try:
        pid = int(pid_file.read_text().split()[0])
        runs_there = Path(f"/proc/{pid}/cwd").readlink() == works_in.resolve()
    except (OSError, ValueError, IndexError):
        return None
    return pid if runs_there else None
