"""The ingest streams on Redis, and the nudges that say something waits."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from memory.errors import QueueFull, ServerAway, SettingsError
from memory.redis_client import RETRY_WHEN_FULL_S, OutOfMemoryError, ResponseError, connect, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Lane = Literal["fast", "bulk"]
LANES: tuple[Lane, ...] = ("fast", "bulk")
"""In the order in which they are read: a chat turn never waits behind an import."""

Nudge = Literal["embed", "index"]

GROUP = "embed"
"""The consumer group of every embed worker."""

TAKEN = "mem:in:taken"
"""Its remaining lifetime says when memories were last brought on. Never written where Redis may be full:
that would refuse the acknowledgement beside it, which makes room."""

TAKEN_LIFETIME_MS = 10 * 365 * 86_400_000

WITHOUT_APPENDONLY = "Redis runs without appendonly: what waits in it is lost when it stops"

_BODY = b"m"
_NUDGE_LIFETIME_MS = 1000
_WRITTEN_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.005
_PAGE = 100  # an entry may be a megabyte

# All or nothing, and never past the bounds. XADD alone would grow until Redis is full, and a full Redis
# refuses even what empties it: acknowledgements, and the nudges of Celery.
_PUSH = """
local waiting = redis.call('XLEN', KEYS[1])
if waiting + #ARGV - 1 > tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. waiting .. ' memories wait, as many as may')
end
local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and used > most * 0.7 then
  return redis.error_reply('QUEUEFULL Redis uses more than 70 % of its maxmemory')
end
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], '*', 'm', ARGV[i])
end
local n_flushes = string.match(redis.call('INFO', 'persistence'), 'aof_pending_bio_fsync:(%d+)')
if not n_flushes or n_flushes == '0' then
  return false
end
return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
"""

_ACKNOWLEDGE = """
for i = 3, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One memory on a stream, handed to this consumer and not acknowledged yet."""

    lane: Lane
    stream_id: str
    body: bytes | None  # None: the entry was deleted on the server
    n_deliveries: int

    @property
    def entry_id(self) -> str:
        """Names the entry among those of all lanes."""
        return f"{self.lane}:{self.stream_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An entry that was delivered to somebody and is not acknowledged."""

    lane: Lane
    stream_id: str
    n_deliveries: int


class IngestStream:
    """Raw memories on their way to the database, at least once each.

    Args:
        url: the Redis database of the streams.
        max_waiting: bound of each lane.
        fsync: push only where Redis has each write on its disk before it answers.

    """

    def __init__(self, url: str, *, max_waiting: int = 1_000_000, fsync: bool = False) -> None:
        self._max_waiting = max_waiting
        self._fsync = fsync
        self._redis = connect(url)  # a push that is sent twice is stored once, by its uid
        self._push = self._redis.register_script(_PUSH)
        self._acknowledge = self._redis.register_script(_ACKNOWLEDGE)

    def push(self, bodies: Sequence[bytes], *, lane: Lane) -> None:
        """Append all of `bodies` or none. When this returns, they are accepted.

        Raises:
            QueueFull: the lane is at its bound or Redis is out of memory; nothing was appended.
            ServerAway: Redis cannot be reached; they may or may not be there, and pushing them again
                under the same uids is right.
            SettingsError: each push was to be on the disk, and this Redis does not do that.

        """
        if not bodies:
            return
        with translated():
            if self._fsync:
                self._check_flushes()
            try:
                run_id: Any = self._push(keys=[stream_key(lane)], args=[self._max_waiting, *bodies])
            except OutOfMemoryError as error:
                message = "Redis is out of memory: the workers must catch up first"
                raise QueueFull(message, retry_after_s=RETRY_WHEN_FULL_S) from error
            except ResponseError as error:
                if not str(error).startswith("QUEUEFULL"):
                    raise
                message = f"the {lane} lane is full: {str(error).removeprefix('QUEUEFULL ')}"
                raise QueueFull(message, retry_after_s=RETRY_WHEN_FULL_S) from error
            if run_id:
                self._wait_until_written(run_id.decode())

    def ensure_groups(self) -> None:
        """Create the streams and their consumer group where they are not there yet."""
        for lane in LANES:
            with translated():
                try:
                    self._redis.xgroup_create(stream_key(lane), GROUP, id="0", mkstream=True)
                except OutOfMemoryError:
                    if not self._has_group(lane):
                        raise
                except ResponseError as error:
                    if not str(error).startswith("BUSYGROUP"):
                        raise
        with contextlib.suppress(QueueFull), translated():
            self._redis.set(TAKEN, 1, nx=True, px=TAKEN_LIFETIME_MS)

    def read_new(self, consumer: str, *, count: int, lanes: Sequence[Lane] = LANES) -> list[Entry]:
        """Take up to `count` entries that nobody has had, of one lane, the fast one first. Never waits.

        Never of both: a single memory would wait until the bulk ones beside it are embedded.
        """
        for lane in lanes:
            if entries := self._read_lane(lane, consumer, count=count):
                return entries
        return []

    def pending(self, *, consumer: str | None, min_idle_s: float, count: int) -> list[Pending]:
        """Return up to `count` unacknowledged entries of a lane each, oldest first.

        Args:
            consumer: only those delivered to it; anybody's where absent.
            min_idle_s: only those whose last delivery is at least so long ago.
            count: at most so many of each lane.

        """
        found: list[Pending] = []
        for lane in LANES:
            rows = self._pending_rows(lane, consumer, min_idle_s=min_idle_s, count=count)
            found.extend(
                Pending(lane=lane, stream_id=r["message_id"].decode(), n_deliveries=r["times_delivered"])
                for r in rows
            )
        return found

    def claim(self, pending: Sequence[Pending], *, consumer: str, min_idle_s: float) -> list[Entry]:
        """Take over entries of one lane. One that another consumer took meanwhile is left out.

        Each counts as one more delivery.
        """
        counts = {p.stream_id: p.n_deliveries for p in pending}
        lane = pending[0].lane
        with translated():
            rows: Any = self._redis.xclaim(
                stream_key(lane), GROUP, consumer, min_idle_time=int(min_idle_s * 1000), message_ids=[*counts]
            )
        return [_entry(lane, row, n_deliveries=counts.get(row[0].decode(), 0) + 1) for row in rows]

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Give entries back for good: they are in the database now. Together with their deletion.

        A full Redis takes this too, and has room again: it refuses any transaction, but no script that only
        removes.
        """
        for lane in LANES:
            if ids := [e.stream_id for e in entries if e.lane == lane]:
                with translated():
                    self._acknowledge(keys=[stream_key(lane), TAKEN], args=[GROUP, TAKEN_LIFETIME_MS, *ids])

    def uncount_delivery(self, entries: Sequence[Entry], *, consumer: str) -> None:
        """Keep entries for a later try that was nobody's fault: this delivery does not count."""
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.xclaim(
                stream_key(entry.lane),
                GROUP,
                consumer,
                min_idle_time=0,
                message_ids=[entry.stream_id],
                retrycount=max(0, entry.n_deliveries - 1),
                justid=True,
            )
        with translated():
            pipeline.execute()

    def keep(self, entries: Sequence[Entry], *, consumer: str) -> None:
        """Say that these are still worked on, so that nobody takes them over as left behind."""
        for lane in LANES:
            if ids := [e.stream_id for e in entries if e.lane == lane]:
                with translated():
                    self._redis.xclaim(
                        stream_key(lane), GROUP, consumer, min_idle_time=0, message_ids=[*ids], justid=True
                    )
                    self._redis.pexpire(TAKEN, TAKEN_LIFETIME_MS)

    def ends(self) -> dict[Lane, str]:
        """Return the newest entry's stream id, of each lane that holds any."""
        found: dict[Lane, str] = {}
        for lane in LANES:
            with translated():
                rows: Any = self._redis.xrevrange(stream_key(lane), count=1)
            if rows:
                found[lane] = rows[0][0].decode()
        return found

    def pages(self, lane: Lane) -> Iterator[list[Entry]]:
        """Yield what a lane holds now, oldest first, delivered or not. Takes nothing."""
        start, end = "-", self.ends().get(lane, "0-0")
        while True:
            with translated():
                rows: Any = self._redis.xrange(stream_key(lane), min=start, max=end, count=_PAGE)
            if not rows:
                return
            yield [_entry(lane, row, n_deliveries=0) for row in rows]
            start = f"({rows[-1][0].decode()}"

    def rewrite_log(self) -> None:
        """Let Redis begin to write its append-only file anew, without what is gone by now.

        Raises:
            ServerAway: it cannot be reached, or writes one already.

        """
        with translated():
            if self._redis.info("persistence").get("aof_enabled"):
                self._redis.bgrewriteaof()

    def waiting(self) -> dict[Lane, int]:
        """Return how many entries each lane holds: waiting, or delivered and not stored yet."""
        with translated():
            return {lane: int(self._redis.xlen(stream_key(lane))) for lane in LANES}

    def n_unacknowledged(self) -> int:
        """Return how many entries are delivered and not acknowledged."""
        total = 0
        for lane in LANES:
            with translated():
                try:
                    total += int(self._redis.xpending(stream_key(lane), GROUP)["pending"])
                except ResponseError as error:
                    if not str(error).startswith("NOGROUP"):
                        raise
        return total

    def claim_nudge(self, kind: Nudge) -> bool:
        """Return whether a nudge should be sent: not while one is under way that has not started.

        The worker clears it before it looks at the stream, so what was pushed before is seen by that
        look. A lost nudge expires in a second, and the ticker sends others.
        """
        with translated():
            return bool(self._redis.set(f"mem:nudge:{kind}", 1, nx=True, px=_NUDGE_LIFETIME_MS))

    def clear_nudge(self, kind: Nudge) -> None:
        """Say that a nudge has arrived."""
        with translated():
            self._redis.delete(f"mem:nudge:{kind}")

    def check_server(self) -> list[str]:
        """Check that Redis can be trusted with memories; return warnings.

        Raises:
            SettingsError: its eviction policy may throw memories away; or each push was to be on the disk,
                and it does not do that.
            ServerAway: it cannot be reached.

        """
        with translated():
            if self._fsync:
                self._check_flushes()
            policy = self._redis.info("memory").get("maxmemory_policy", "noeviction")
            persistence = self._redis.info("persistence")
        if policy != "noeviction":
            message = f"Redis: maxmemory-policy = {policy}: must be noeviction, else it throws memories away"
            raise SettingsError(message)
        if not persistence.get("aof_enabled"):
            return [WITHOUT_APPENDONLY]
        return []

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def _has_group(self, lane: Lane) -> bool:
        try:
            return bool(self._redis.xinfo_groups(stream_key(lane)))
        except ResponseError:  # there is no stream
            return False

    def _read_lane(self, lane: Lane, consumer: str, *, count: int) -> list[Entry]:
        with translated():
            try:
                answer: Any = self._redis.xreadgroup(GROUP, consumer, {stream_key(lane): ">"}, count=count)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                # Redis came back empty. Nothing can be waiting there that was not pushed since.
                self.ensure_groups()
                return self._read_lane(lane, consumer, count=count)
        rows = answer[0][1] if answer else []
        return [_entry(lane, row, n_deliveries=1) for row in rows]

    def _pending_rows(self, lane: Lane, consumer: str | None, *, min_idle_s: float, count: int) -> Any:
        with translated():
            try:
                return self._redis.xpending_range(
                    stream_key(lane),
                    GROUP,
                    min="-",
                    max="+",
                    count=count,
                    consumername=consumer,
                    idle=int(min_idle_s * 1000) or None,
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self.ensure_groups()
                return []

    def _check_flushes(self) -> None:
        """Check that Redis flushes its file before it answers.

        To wait with WAITAOF for `everysec` would do, but many servers answer too early (redis/redis#13793).
        """
        try:
            state: Any = self._redis.config_get("append*")
        except ResponseError as error:
            state = {"appendonly": str(error)}
        if (state.get("appendonly"), state.get("appendfsync")) != ("yes", "always"):
            message = (
                "MEMORY_DURABILITY = 'fsync': Redis must run with appendonly yes and appendfsync always, "
                f"not {state.get('appendonly')} and {state.get('appendfsync')}"
            )
            raise SettingsError(message)

    def _wait_until_written(self, run_id: str) -> None:
        """Wait until Redis has handed its file over what was pushed, so that killing it loses nothing.

        While one flush of the file is under way, Redis lets its writes be for up to two seconds, and answers
        all the same. With none under way it writes before it answers.
        """
        deadline = time.monotonic() + _WRITTEN_WITHIN_S
        while True:
            state: Any = self._redis.info()
            if state["run_id"] != run_id:
                message = "Redis was started again before it wrote the memories to its file"
                raise ServerAway(message)
            if not state.get("aof_pending_bio_fsync") or not state.get("aof_buffer_length"):
                return
            if time.monotonic() > deadline:
                message = f"Redis did not write the memories to its file within {_WRITTEN_WITHIN_S:g} s"
                raise ServerAway(message)
            time.sleep(_LOOK_AGAIN_S)


def stream_key(lane: Lane) -> str:
    """Return the name of a lane's stream."""
    return f"mem:in:{lane}"


def _entry(lane: Lane, row: Any, *, n_deliveries: int) -> Entry:
    stream_id, fields = row
    body = fields.get(_BODY, b"") if fields is not None else None
    return Entry(lane=lane, stream_id=stream_id.decode(), body=body, n_deliveries=n_deliveries)
