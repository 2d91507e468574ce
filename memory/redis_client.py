"""The one door to Redis: connections, and its errors in our words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from memory.errors import QueueFull, ServerAway

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "RETRY_WHEN_FULL_S",
    "OutOfMemoryError",
    "RedisError",
    "ResponseError",
    "connect",
    "connect_async",
    "translated",
]

RETRY_WHEN_FULL_S = 1.0
SOCKET_TIMEOUT_S = 10.0
"""No command may block for longer."""
_CONNECT_TIMEOUT_S = 3.0
_TRIES = (ExponentialWithJitterBackoff(base=0.05, cap=1), 3)
_BROKEN = (redis.ConnectionError,)


def connect(url: str) -> redis.Redis:
    """Return a client of one Redis database. Connects at the first command; safe to share between threads.

    A command is tried again three times when the connection breaks, so each must bear being run twice. Where
    there is no answer in time there is no other try: it would only make the silence longer.
    """
    client: redis.Redis = redis.Redis.from_url(
        url, **_options(timeout_s=SOCKET_TIMEOUT_S), retry=Retry(*_TRIES, supported_errors=_BROKEN)
    )
    return client


def connect_async(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """Return such a client for one event loop, with its own bound for an answer."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, **_options(timeout_s=timeout_s), retry=AsyncRetry(*_TRIES, supported_errors=_BROKEN)
    )
    return client


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Redis raises into our errors.

    Raises:
        QueueFull: it is out of memory.
        ServerAway: it cannot be reached, is loading, or refuses for now (its disk is full, it is a replica).

    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, BusyLoadingError) as error:
        message = f"Redis: {error}"
        raise ServerAway(message) from error
    except OutOfMemoryError as error:
        message = "Redis is out of memory"
        raise QueueFull(message, retry_after_s=RETRY_WHEN_FULL_S) from error
    except RedisError as error:
        message = f"Redis: {error}"
        raise ServerAway(message) from error


def _options(*, timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, _CONNECT_TIMEOUT_S),
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
