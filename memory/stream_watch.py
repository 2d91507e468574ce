"""Reads how the ingest streams are, in one round trip, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memory.redis_client import RedisError, ResponseError, connect, translated
from memory.stream import GROUP, LANES, TAKEN, TAKEN_LIFETIME_MS, WITHOUT_APPENDONLY, Pending, stream_key

if TYPE_CHECKING:
    from collections.abc import Sequence

REDELIVERED_OFTEN = 3
"""Deliveries of one entry that are no accident any more: two workers died with it in their hands."""

_LOOK_AT = 1000  # entries of a lane; those delivered most often are its oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamVitals:
    """How the ingest streams are. Ages by the clock of Redis."""

    waiting_fast: int
    waiting_bulk: int
    unacknowledged: int  # of the waiting: in a worker's hands
    oldest_waiting_s: float | None
    taken_s: float | None  # since memories were last stored, given up, or got through the model
    n_redelivered: int
    redis_warnings: tuple[str, ...]
    redis_memory_share: float | None  # of maxmemory; None: it has none


class StreamWatch:
    """Looks at the ingest streams of one Redis database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    def read(self) -> StreamVitals:
        """Look at the streams.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.pttl(TAKEN)
        pipeline.info("memory")
        pipeline.info("persistence")
        for lane in LANES:
            pipeline.xlen(stream_key(lane))
            pipeline.xrange(stream_key(lane), count=1)
            pipeline.xpending(stream_key(lane), GROUP)
            pipeline.xpending_range(stream_key(lane), GROUP, min="-", max="+", count=_LOOK_AT)
        with translated():
            now, ttl_ms, memory, persistence, *lanes = _known(pipeline.execute(raise_on_error=False))
        fast, bulk = lanes[:4], lanes[4:]
        return StreamVitals(
            waiting_fast=fast[0] or 0,
            waiting_bulk=bulk[0] or 0,
            unacknowledged=sum(lane[2]["pending"] if lane[2] else 0 for lane in (fast, bulk)),
            oldest_waiting_s=_oldest_s(now, fast[1], bulk[1]),
            taken_s=None if ttl_ms < 0 else max(0.0, (TAKEN_LIFETIME_MS - ttl_ms) / 1000),
            n_redelivered=sum(
                row["times_delivered"] >= REDELIVERED_OFTEN for lane in (fast, bulk) for row in lane[3] or []
            ),
            redis_warnings=_warnings(memory, persistence),
            redis_memory_share=_memory_share(memory),
        )

    def left_behind(self, *, idle_s: float, n_deliveries: int) -> tuple[list[Pending], list[Pending]]:
        """Return entries that nobody acknowledges: untouched for so long, and delivered more than so often.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        idle: list[Pending] = []
        often: list[Pending] = []
        for lane in LANES:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.xpending_range(stream_key(lane), GROUP, min="-", max="+", count=_LOOK_AT)
            with translated():
                [rows] = _known(pipeline.execute(raise_on_error=False))
            for row in rows or []:
                entry = Pending(
                    lane=lane, stream_id=row["message_id"].decode(), n_deliveries=row["times_delivered"]
                )
                if row["time_since_delivered"] > idle_s * 1000:
                    idle.append(entry)
                if entry.n_deliveries > n_deliveries:
                    often.append(entry)
        return idle, often

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()


def _known(answers: Sequence[Any]) -> list[Any]:
    """Return the answers, `None` for one about a group that is not there yet; raise any other error."""
    found: list[Any] = []
    for answer in answers:
        if isinstance(answer, RedisError) and not _is_no_group(answer):
            raise answer
        found.append(None if isinstance(answer, RedisError) else answer)
    return found


def _is_no_group(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("NOGROUP")


def _oldest_s(now: tuple[int, int], *firsts: Any) -> float | None:
    oldest_ms = [int(row[0].split(b"-")[0]) for rows in firsts for row in rows or []]
    return max(0.0, now[0] + now[1] / 1e6 - min(oldest_ms) / 1000) if oldest_ms else None


def _memory_share(memory: Any) -> float | None:
    most = int(memory.get("maxmemory", 0))
    return int(memory["used_memory"]) / most if most else None


def _warnings(memory: Any, persistence: Any) -> tuple[str, ...]:
    found: list[str] = []
    if not int(persistence.get("aof_enabled", 0)):
        found.append(WITHOUT_APPENDONLY)
    elif persistence.get("aof_last_write_status", "ok") != "ok":
        found.append("Redis could not write its append-only file: its disk may be full")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"Redis may throw memories away: maxmemory-policy = {policy}, must be noeviction")
    return tuple(found)
