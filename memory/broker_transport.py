"""Kombu's Redis transport, but garbage on a queue is dropped instead of ending the worker."""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis as kombu_redis

log = structlog.get_logger(__name__)


class Channel(kombu_redis.Channel):
    """Kombu decodes what it pops inside its event loop, where an error would end the whole worker."""

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
