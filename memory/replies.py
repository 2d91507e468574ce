"""Answers on their way back to who asked: one list for each question, taken once, gone after a minute.

Celery's own results need a subscription that gives up for good after an outage; a list needs none.
"""

from __future__ import annotations

import json
import time
from typing import Any

import uuid_utils

from memory.redis_client import connect, translated

_KEPT_S = 60
_SLICE_S = 5.0


class Replies:
    """The answers in one Redis database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    def new_address(self) -> str:
        """Return where the answer to one question is to be put."""
        return f"mem:reply:{uuid_utils.uuid7()}"

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

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()
