"""How often each key asks: counted in Redis, so that several processes count together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from limits import parse
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from memory.redis_client import connect

if TYPE_CHECKING:
    from memory.api_keys import ApiKey

_ANSWER_S = 1.0
_UNCOUNTED_S = 5.0


class RequestCount:
    """The requests of each key in this minute. Safe to share between threads.

    Without Redis nothing is counted: what needs none goes on. It is not asked again for five seconds then,
    so that a Redis which hangs holds up few requests, and each of them for a second.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect(url, timeout_s=_ANSWER_S)
        storage = RedisStorage(url, connection_pool=self._redis.connection_pool, wrap_exceptions=True)
        self._limiter = FixedWindowRateLimiter(storage)
        self._asks_again_at = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def seconds_too_early(self, key: ApiKey) -> int:
        """Count a request; return 0 where it is allowed, else after how many seconds the next one is."""
        if time.monotonic() < self._asks_again_at:
            return 0
        allowed = parse(f"{key.requests_a_minute}/minute")
        try:
            if self._limiter.hit(allowed, "api", key.id):
                return 0
            reset_at, _ = self._limiter.get_window_stats(allowed, "api", key.id)
        except StorageError:
            self._asks_again_at = time.monotonic() + _UNCOUNTED_S
            return 0
        return max(1, round(reset_at - time.time()))
