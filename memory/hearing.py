"""Watches that a Celery worker still hears: after an outage its loop can turn and take nothing."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals
from kombu.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 3.0
DEAF_AFTER_S = 9.0
_NO_SUCH_QUEUE = "404"


class HearingWatch(threading.Thread):
    """Ends the process when messages wait on its queues, it is free, and it takes none.

    Beat sends a tick every two seconds, so a worker that hears always has taken one lately.

    Args:
        app: the worker's app; a connection of its own is used.
        queues: what the worker consumes.
        concurrency: how many tasks it runs at once.
        on_hearing: called at each look that found nothing wrong.

    """

    def __init__(
        self, app: Celery, *, queues: Sequence[str], concurrency: int, on_hearing: Callable[[], None]
    ) -> None:
        super().__init__(name="hearing-watch", daemon=True)
        self._app = app
        self._queues = queues
        self._concurrency = concurrency
        self._on_hearing = on_hearing
        self._n_running = 0
        self._broker_is_away = False
        self._counting = threading.Lock()
        self._heard_at = time.monotonic()
        signals.task_received.connect(self._on_received, weak=False)
        signals.task_prerun.connect(self._on_start, weak=False)
        signals.task_postrun.connect(self._on_end, weak=False)

    def run(self) -> None:
        """Look every few seconds, for as long as the process lives."""
        while True:
            time.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look once, and end the process if it is deaf."""
        if self._n_running >= self._concurrency:
            self._heard_at = time.monotonic()  # busy: it cannot take more, and shows progress itself
        elif not self._something_waits():
            self._hears()
        elif time.monotonic() - self._heard_at > DEAF_AFTER_S:
            log.critical("worker_deaf", queues=list(self._queues))
            os._exit(os.EX_TEMPFAIL)  # start again
        else:
            self._on_hearing()

    def _hears(self) -> None:
        self._heard_at = time.monotonic()
        self._on_hearing()

    def _something_waits(self) -> bool:
        try:
            with self._app.connection_for_read() as connection, connection.channel() as channel:
                waits = any(_n_waiting(channel, queue) for queue in self._queues)
        except Exception as error:  # noqa: BLE001 (whatever an outage raises, the watch goes on)
            if not self._broker_is_away:  # said once for each outage
                log.warning("broker_not_reached", reason=f"{type(error).__name__}: {error}")
            self._broker_is_away = True
            return False  # the broker is away: there is nothing to hear
        self._broker_is_away = False
        return waits

    def _on_received(self, **_kwargs: Any) -> None:
        self._heard_at = time.monotonic()

    def _on_start(self, **_kwargs: Any) -> None:
        with self._counting:
            self._n_running += 1

    def _on_end(self, **_kwargs: Any) -> None:
        with self._counting:
            self._n_running -= 1
        self._heard_at = time.monotonic()


def _n_waiting(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError as error:
        if str(error.reply_code) != _NO_SUCH_QUEUE:
            raise
        return 0  # Redis knows no empty list: an empty queue is one that is not there
