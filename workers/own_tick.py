"""The embed worker's own clock: it looks at the stream by itself where nothing reaches it that says so.

A full Redis refuses nudges, and only the drain makes room there; and a worker whose clock is wrong takes
every nudge for one that has expired.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)


class OwnTick(threading.Thread):
    """Calls `run` at every tick before which it did not run for two ticks, whoever called it.

    Args:
        run: safe to call from any thread.
        ran_at: when it last ran, by the monotonic clock.
        tick_s: the pace of the ticker, which makes this one rest while it is heard.

    """

    def __init__(self, run: Callable[[], object], *, ran_at: Callable[[], float], tick_s: float) -> None:
        super().__init__(name="own-tick", daemon=True)
        self._run_once = run
        self._ran_at = ran_at
        self._tick_s = tick_s

    def run(self) -> None:
        """Go on for as long as the process lives."""
        while True:
            time.sleep(self._tick_s)
            if time.monotonic() - self._ran_at() > 2 * self._tick_s:
                try:
                    self._run_once()
                except Exception:  # whatever it was, there is another tick
                    log.exception("own_tick_failed")
