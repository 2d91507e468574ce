"""Answers on their way back to who asked: one list for each question, taken once, gone after a minute.

Celery's own results need a subscription that gives up for good after an outage; a list needs none.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import uuid_utils

from memory.redis_client import connect, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PREFIX = "mem:reply:"
_KEPT_S = 60
_SLICE_S = 5.0


class Replies:
    """The answers in one Redis database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    def new_address(self) -> str:
        """Return where the answer to one question is to be put."""
        return f"{_PREFIX}{uuid_utils.uuid7()}"

    def give(self, address: str, answer: dict[str, Any]) -> None:
        """Put an answer. Nobody may be waiting any more: then it expires.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.rpush(address, json.dumps(answer, ensure_ascii=False))
        pipeline.expire(address, _KEPT_S)
        with translated():
            pipeline.execute()

    def take(self, address: str, *, timeout_s: float) -> dict[str, Any] | None:
        """Wait for an answer; `None` where none came in time.

        Raises:
            ServerAway: Redis cannot be reached; the answer may be lost.

        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            with translated():
                found: Any = self._redis.blpop([address], timeout=min(left_s, _SLICE_S))
            if found:
                answer: dict[str, Any] = json.loads(found[1])
                return answer
        return None

    def holding(self, matches: Callable[[dict[str, Any]], bool]) -> list[str]:
        """Return the addresses of the answers that nobody took yet and that `matches` says yes to."""
        found: list[str] = []
        with translated():
            for address in self._redis.scan_iter(match=f"{_PREFIX}*", count=1000):
                bodies: Any = self._redis.lrange(address, 0, -1)
                if any(matches(answer) for body in bodies if (answer := _decoded(body))):
                    found.append(address.decode())
        return found

    def remove(self, addresses: Sequence[str]) -> int:
        """Remove the answers at these addresses; return how many there were. Who waits for one asks again."""
        if not addresses:
            return 0
        with translated():
            n_removed: Any = self._redis.delete(*addresses)
        return int(n_removed)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()


def _decoded(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
