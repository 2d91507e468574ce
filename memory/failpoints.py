"""Places at which a test makes a process die, fail or stand still: the moments that matter, hit exactly.

Off unless MEMORY_FAILPOINTS names a directory, and refused in production. A file there, named as a
failpoint, is taken (so it acts once, in one process) and says what happens: `kill`, `raise` or `hang`.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from pathlib import Path

Failpoint = Literal[
    "embed.read",  # entries are in hand, nothing was done with them
    "embed.embedded",  # their vectors are made
    "embed.before_commit",  # rows and events are written, not committed
    "embed.committed",  # committed, not acknowledged
    "embed.acknowledged",  # acknowledged, the indexer not nudged
    "snapshot.written",  # its files are written, not flushed
    "snapshot.flushed",  # they are on the disk, under a name that does not count
    "snapshot.renamed",  # complete, CURRENT names the one before
    "snapshot.current",  # CURRENT names it, the database does not know of it
    "snapshot.recorded",  # the database knows, the oldest is not deleted yet
    "snapshot.pruned",  # all done
]
FAILPOINTS: tuple[Failpoint, ...] = get_args(Failpoint)

_directory: Path | None = None


class FailpointReached(Exception):
    """What a failpoint raises that was told to raise: an error that nobody expects."""


def arm(directory: Path | None) -> None:
    """Let this process look for failpoints' files in `directory`; `None`: never."""
    global _directory  # noqa: PLW0603 (a process has one, set at its start)
    _directory = directory


def reach(name: Failpoint) -> None:
    """Do what the failpoint's file says, if there is one.

    Raises:
        FailpointReached: it says `raise`.

    """
    if _directory is None:
        return
    file = _directory / name
    taken = file.with_suffix(f"{file.suffix}.{os.getpid()}")
    try:
        file.rename(taken)
    except FileNotFoundError:
        return
    action = taken.read_text().strip()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        threading.Event().wait()
    raise FailpointReached(f"failpoint {name}: {action}")
