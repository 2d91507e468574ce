"""Entries on the ingest stream that can never be stored: each must become one dead letter."""

from __future__ import annotations

import json
import random

import redis

from benchmarks.chaos.ledger import Ending, Ledger
from memory.stream import LANES, stream_key

NAMESPACE = "poison"


class Poisoner:
    """Puts one producer's share of poison on the stream, past the client, which would refuse it."""

    def __init__(
        self, number: int, *, n_to_do: int, stream: redis.Redis, ledger: Ledger, rng: random.Random
    ) -> None:
        self._number = number
        self._n_to_do = n_to_do
        self._n_done = 0
        self._stream = stream
        self._ledger = ledger
        self._rng = rng

    def keep_up(self, share: float) -> None:
        """Put as many as are due when this share of the memories is enqueued. None is tried twice."""
        while self._n_done < min(1.0, share) * self._n_to_do:
            self._n_done += 1
            uid = f"poison-{self._number}-{self._n_done}"
            try:
                self._stream.xadd(stream_key(self._rng.choice(LANES)), {"m": _body(uid, self._rng)})
                ending = Ending.ACKNOWLEDGED
            except redis.OutOfMemoryError:
                ending = Ending.FAILED
            except redis.RedisError:
                ending = Ending.INDETERMINATE
            self._ledger.poison[uid] = ending

    def close(self) -> None:
        self._stream.close()


def _body(uid: str, rng: random.Random) -> bytes:
    envelope = {"v": 1, "uid": uid, "namespace": NAMESPACE, "content": "x"}
    spoilt = rng.choice(
        (
            {"v": 99},
            {"content": "a\0b"},
            {"content": "a\ud800b"},
            {"content": "   "},
            {"content": "x" * 100_000},
            {"metadata": {"importance": float("nan")}},
            {"memory_type": "gossip"},
        )
    )
    return json.dumps({**envelope, **spoilt}).encode()
