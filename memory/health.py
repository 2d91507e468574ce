"""Health is progress: a process is well while its loop turns and its part of the pipeline moves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from memory.database import Database
from memory.errors import MemorySystemError
from memory.heartbeat import Heartbeat
from memory.status import read_vitals
from memory.stream_watch import StreamWatch
from memory.verdict import Limits, Vitals, judge

if TYPE_CHECKING:
    from memory.settings import Settings
    from memory.verdict import Part

_PATIENCE_S = 2.0
"""A healthcheck must answer, also where a server does not."""


def is_healthy(settings: Settings, *, name: str, part: Part) -> bool:
    """Whether the process's heartbeat is fresh, and its part of the pipeline not stuck.

    Where the servers cannot be asked, the heartbeat alone decides: a restart would not bring them back.
    """
    if not Heartbeat(settings.home, name).is_fresh():
        return False
    found: list[Vitals] = []
    look = threading.Thread(target=_look, args=(settings, found), daemon=True)
    look.start()
    look.join(timeout=_PATIENCE_S)
    return not found or not judge(found[0], Limits.of(settings)).is_stuck(part)


def _look(settings: Settings, found: list[Vitals]) -> None:
    try:
        database = Database(settings.database_url)
        stream = StreamWatch(settings.redis_database_url("ingest"))
        found.append(read_vitals(database, stream))
    except MemorySystemError:
        return
