"""How often each key asks: counted in Redis, so that several processes count together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from memory.redis_client import connect_async

if TYPE_CHECKING:
    from memory.api_keys import ApiKey

_ANSWER_S = 1.0
_UNCOUNTED_S = 5.0
_BLOCKS = 50
_MINUTE_S = 60.0


@dataclass(slots=True)
class _Block:
    left: int
    until: float


class RequestCount:
    """The requests of each key in this minute, for one event loop.

    They are taken from Redis in blocks, a fiftieth of what the key may make: most requests need not ask. What
    one process has taken and does not need, another one lacks.

    Without Redis nothing is counted: what needs none goes on. It is not asked again for five seconds then,
    so that a Redis which hangs holds up few requests, and each of them for a second.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect_async(url, timeout_s=_ANSWER_S)
        storage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            connection_pool=self._redis.connection_pool,  # type: ignore[arg-type] # as it documents
        )
        self._limiter = FixedWindowRateLimiter(storage)
        self._asks_again_at = 0.0
        self._blocks: dict[str, _Block] = {}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def seconds_too_early(self, key: ApiKey) -> int:
        """Count a request; return 0 where it is allowed, else after how many seconds the next one is."""
        now = time.monotonic()
        block = self._blocks.get(key.id)
        if block and block.left and now < block.until:
            block.left -= 1
            return 0
        if now < self._asks_again_at:
            return 0
        allowed, size = (
            RateLimitItemPerMinute(key.requests_a_minute),
            max(1, key.requests_a_minute // _BLOCKS),
        )
        try:
            if await self._limiter.hit(allowed, "api", key.id, cost=size):
                self._blocks[key.id] = _Block(left=size - 1, until=now + _MINUTE_S)
                return 0
            reset_at, _ = await self._limiter.get_window_stats(allowed, "api", key.id)
        except StorageError:
            self._asks_again_at = time.monotonic() + _UNCOUNTED_S
            return 0
        return max(1, round(reset_at - time.time()))
