"""Kombu's Redis transport without what ends a worker: garbage on a queue, and a Redis that is full."""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

log = structlog.get_logger(__name__)


class QoS(virtual.QoS):
    """Knows what was taken and is not done yet, in memory alone: a nudge lost with its worker costs a tick.

    Kombu's own notes each message in Redis, in transactions; a full Redis refuses those, and the worker ends.
    """

    restore_at_shutdown = False

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: ARG002
        """Drop it, whatever is asked for."""
        self.ack(delivery_tag)  # type: ignore[no-untyped-call]

    def restore_unacked(self) -> None:
        """Drop what was not done."""
        self._delivered.clear()

    def restore_visible(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing was noted, so nothing comes again."""


class Channel(kombu_redis.Channel):
    """Kombu decodes what it pops inside its event loop, where an error would end the whole worker."""

    QoS = QoS  # type: ignore[assignment]

    def _queue_bind(self, *_args: Any) -> None:
        """Write no binding: every message names its queue, and who starts while Redis is full must start."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # The reply was read and is off the queue. It is only ever a nudge: nothing is lost.
            log.warning("message_refused", reason=f"{type(error).__name__}: {error}")
            return True


class Transport(kombu_redis.Transport):
    """What the setting `broker_transport` names."""

    Channel = Channel
