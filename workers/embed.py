"""The drain: takes raw memories off the stream, embeds and stores them, and acknowledges last."""

from __future__ import annotations

import faulthandler
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from memory.errors import InvalidMemory, ModelMismatch, Recoverable
from memory.messages import RawMemory, from_envelope, peek_key
from memory.stream import LANES, Entry, IngestStream, Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memory.broker import Nudger
    from memory.ingestion import Ingestion
    from memory.settings import Settings
    from memory.store.dead_letters import DeadLetters

log = structlog.get_logger(__name__)

_WATCHDOG_S = 120
"""A pass through the model, or a transaction, that takes this long hangs: the process ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    entry: Entry
    raw: RawMemory


class Drain:
    """One consumer of the ingest stream.

    `consumer` is stable over restarts, so that a worker started again takes up at once what it
    left unacknowledged when it was killed.
    """

    def __init__(
        self,
        *,
        consumer: str,
        settings: Settings,
        stream: IngestStream,
        ingestion: Ingestion,
        dead_letters: DeadLetters,
        nudger: Nudger,
        on_progress: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._stream = stream
        self._ingestion = ingestion
        self._dead_letters = dead_letters
        self._nudger = nudger
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._in_hand: Sequence[Entry] = ()
        self._kept_at = 0.0

    def run(self) -> int:
        """Store what waits, until nothing does or the budget is spent; return how many entries.

        Raises:
            ModelMismatch: another model serves by now. What was read stays unacknowledged.

        At least once: an entry is acknowledged only after its memory, or its dead letter, is committed.

        """
        self._on_progress()
        self._stream.clear_nudge("embed")
        deadline = time.monotonic() + self._settings.drain_budget_s
        n_done = 0
        try:
            n_done += self._take_back()
            while not self._should_stop() and time.monotonic() < deadline:
                entries = self._stream.read_new(self._consumer, count=self._settings.embed_batch)
                if not entries:
                    return n_done
                if len(entries) == self._settings.embed_batch:
                    self._nudger.nudge("embed")  # there may be more: wake another worker
                n_done += self._finish(entries)
            self._nudger.nudge("embed")
        except Recoverable as error:
            # The ticker comes back in a moment; what was read stays unacknowledged.
            log.warning("drain_interrupted", reason=str(error))
        finally:
            faulthandler.cancel_dump_traceback_later()
        return n_done

    def _take_back(self) -> int:
        """Finish what this consumer left, and what others left long ago, in ever smaller groups.

        Between two drains nothing is in hand, so whatever is pending under this name was left: by a kill,
        by an outage, or because the answer to a read was lost with its connection.
        """
        n_done = self._redeliver(consumer=self._consumer, min_idle_s=0)
        return n_done + self._redeliver(consumer=None, min_idle_s=self._settings.reclaim_after_s)

    def _redeliver(self, *, consumer: str | None, min_idle_s: float) -> int:
        n_done = 0
        while not self._should_stop():
            pending = self._stream.pending(
                consumer=consumer, min_idle_s=min_idle_s, count=self._settings.embed_batch
            )
            if not pending:
                break
            for lane in LANES:
                for group in self._groups([p for p in pending if p.lane == lane]):
                    entries = self._stream.claim(group, consumer=self._consumer, min_idle_s=min_idle_s)
                    n_done += self._finish(entries)
        return n_done

    def _groups(self, pending: Sequence[Pending]) -> list[list[Pending]]:
        """Split by how often each was delivered: the more often, the fewer go together, at last one."""
        groups: list[list[Pending]] = []
        for p in sorted(pending, key=lambda p: p.n_deliveries):
            size = max(1, self._settings.embed_batch >> (2 * p.n_deliveries))
            if groups and len(groups[-1]) < size and groups[-1][0].n_deliveries == p.n_deliveries:
                groups[-1].append(p)
            else:
                groups.append([p])
        return groups

    def _finish(self, entries: Sequence[Entry]) -> int:
        """Bring every entry to its end: stored, or a dead letter. Then acknowledge."""
        self._in_hand = entries
        self._kept_at = time.monotonic()
        self._show_progress()
        try:
            jobs = [job for entry in entries if (job := self._job(entry))]
            self._store(jobs)
        except (Recoverable, ModelMismatch):  # not the memories' fault
            self._stream.uncount_delivery(entries, consumer=self._consumer)
            raise
        finally:
            self._in_hand = ()
        return len(entries)

    def keep_in_hand(self) -> None:
        """Show that a long batch goes on, and keep other workers from taking it over. Call it often."""
        self._show_progress()
        if self._in_hand and time.monotonic() - self._kept_at > self._settings.reclaim_after_s / 4:
            self._stream.keep(self._in_hand, consumer=self._consumer)
            self._kept_at = time.monotonic()

    def _show_progress(self) -> None:
        self._on_progress()
        faulthandler.dump_traceback_later(_WATCHDOG_S, exit=True)

    def _job(self, entry: Entry) -> _Job | None:
        """Validate again; what can never be stored becomes a dead letter here."""
        if entry.body is None:
            self._stream.acknowledge([entry])
            return None
        if entry.n_deliveries > self._settings.max_deliveries:
            n = entry.n_deliveries - 1
            self._bury(
                entry, reason=f"delivered {n} times, and each time the worker died before it was stored"
            )
            return None
        try:
            raw = from_envelope(entry.body, max_content_bytes=self._settings.max_content_bytes)
        except InvalidMemory as error:
            self._bury(entry, reason=str(error))
            return None
        return _Job(entry=entry, raw=raw)

    def _store(self, jobs: Sequence[_Job]) -> None:
        """Store a batch; where it fails, store its halves: so the one that is poison stands alone."""
        if not jobs:
            return
        try:
            stored = self._ingestion.store([job.raw for job in jobs])
        except (Recoverable, ModelMismatch):
            raise
        except Exception as error:  # noqa: BLE001 (whatever one text does to a model, the others are stored)
            self._isolate(jobs, error)
            return
        self._stream.acknowledge([job.entry for job in jobs])
        log.info("batch_stored", n_new=stored.n_new, n_known=stored.n_known, seq=stored.seq)
        if stored.n_new:
            self._nudger.nudge("index")

    def _isolate(self, jobs: Sequence[_Job], error: Exception) -> None:
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._store(jobs[:middle])
            self._store(jobs[middle:])
            return
        if not isinstance(error, InvalidMemory):
            self._ingestion.check_model()  # nothing is given up for a broken model's sake
        self._bury(jobs[0].entry, reason=f"{type(error).__name__}: {error}")

    def _bury(self, entry: Entry, *, reason: str) -> None:
        body = entry.body or b""
        self._dead_letters.bury(
            entry_id=entry.entry_id,
            key=peek_key(body),
            body=body,
            reason=reason,
            n_deliveries=entry.n_deliveries,
        )
        self._stream.acknowledge([entry])
        log.warning("dead_letter", entry=entry.entry_id, reason=reason)
