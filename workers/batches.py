"""What becomes of a batch: embedded, committed, acknowledged last; poison in it becomes a dead letter."""

from __future__ import annotations

import faulthandler
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from memory.errors import InvalidMemory, ModelMismatch, Recoverable
from memory.failpoints import reach
from memory.messages import RawMemory, from_envelope, peek_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from memory.broker import Nudger
    from memory.ingestion import Ingestion, Prepared
    from memory.settings import Settings
    from memory.store.dead_letters import DeadLetters
    from memory.stream import Entry, IngestStream

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    entry: Entry
    raw: RawMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """A batch that the committing thread has."""

    entries: Sequence[Entry]
    jobs: Sequence[_Job]
    committed: Future[None]


class Batches:
    """Brings every entry to its end: stored, or a dead letter. One thread at a time may use it.

    While a batch is embedded here, the one before it is committed and acknowledged by a thread beside.

    Args:
        consumer: in whose name entries are held.
        settings: how long a step may take, and which memory is too large.
        stream: where entries are acknowledged.
        ingestion: embeds and stores.
        dead_letters: where poison goes.
        nudger: wakes the indexer.
        on_progress: called at each step.

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
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._stream = stream
        self._ingestion = ingestion
        self._dead_letters = dead_letters
        self._nudger = nudger
        self._on_progress = on_progress
        self._committer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committer")
        self._flight: _Flight | None = None
        self._in_hand: tuple[Entry, ...] = ()
        self._kept_at = 0.0
        self._is_watched = False
        self._armed_at = float("-inf")

    def begin(self, entries: Sequence[Entry]) -> None:
        """Embed these, wait for the batch before, and let the committing thread have them.

        Raises:
            Recoverable: they stay unacknowledged, uncounted. So does what `settle` raises.
            ModelMismatch: another model serves by now; they stay, too.

        """
        self._take(entries)
        with self._uncounted(entries):
            jobs = self._jobs(entries)
            prepared = self._prepared(jobs)
            self.settle()
        if prepared is None:
            self._let_go(entries)
            return
        committed = self._committer.submit(self._commit, jobs, prepared)
        self._flight = _Flight(entries=entries, jobs=jobs, committed=committed)

    def finish(self, entries: Sequence[Entry]) -> None:
        """Bring these to their end at once, whatever else is under way."""
        self._take(entries)
        with self._uncounted(entries):
            self._store(self._jobs(entries))
        self._let_go(entries)

    def settle(self) -> None:
        """Wait until nothing is left to be committed.

        Raises:
            Recoverable: it could not be; the entries stay unacknowledged, uncounted.
            ModelMismatch: another model serves by now; they stay, too.

        """
        flight, self._flight = self._flight, None
        if flight is None:
            return
        with self._uncounted(flight.entries), self._isolating(flight.jobs):
            flight.committed.result()  # one that hangs is the watchdog's: no progress is shown here
        self._let_go(flight.entries)

    def keep_in_hand(self) -> None:
        """Show that a long batch goes on, and keep other workers from taking it over. Call it often."""
        self._show_progress()
        if self._in_hand and time.monotonic() - self._kept_at > self._settings.reclaim_after_s / 4:
            self._stream.keep(self._in_hand, consumer=self._consumer)
            self._kept_at = time.monotonic()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, a step that hangs ends the process, which is started again."""
        self._is_watched = True
        try:
            yield
        finally:
            self._is_watched = False
            faulthandler.cancel_dump_traceback_later()
            self._armed_at = float("-inf")

    def _take(self, entries: Sequence[Entry]) -> None:
        if not self._in_hand:
            self._kept_at = time.monotonic()
        self._in_hand += tuple(entries)
        self._show_progress()

    def _let_go(self, entries: Sequence[Entry]) -> None:
        gone = {entry.entry_id for entry in entries}
        self._in_hand = tuple(entry for entry in self._in_hand if entry.entry_id not in gone)

    @contextmanager
    def _uncounted(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Where it is not the memories' fault, this delivery does not count."""
        try:
            yield
        except (Recoverable, ModelMismatch):
            self._let_go(entries)
            self._stream.uncount_delivery(entries, consumer=self._consumer)
            raise
        except BaseException:
            self._let_go(entries)
            raise

    def _show_progress(self) -> None:
        self._on_progress()
        if self._is_watched and time.monotonic() - self._armed_at > self._settings.watchdog_s / 20:
            # Not at every step: each arming starts a thread.
            faulthandler.dump_traceback_later(self._settings.watchdog_s, exit=True)
            self._armed_at = time.monotonic()

    def _jobs(self, entries: Sequence[Entry]) -> list[_Job]:
        reach("embed.read")
        return [job for entry in entries if (job := self._job(entry))]

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

    def _prepared(self, jobs: Sequence[_Job]) -> Prepared | None:
        """Embed them; `None` where there is nothing left to commit, poison being among them."""
        prepared = None
        if jobs:
            with self._isolating(jobs):
                prepared = self._ingestion.prepare([job.raw for job in jobs])
        return prepared

    def _store(self, jobs: Sequence[_Job]) -> None:
        """Store a batch; where it fails, store its halves: so the one that is poison stands alone."""
        if jobs:
            with self._isolating(jobs):
                self._commit(jobs, self._ingestion.prepare([job.raw for job in jobs]))

    @contextmanager
    def _isolating(self, jobs: Sequence[_Job]) -> Iterator[None]:
        """Whatever one text does to the model, or one memory to the database, the others are stored."""
        try:
            yield
        except (Recoverable, ModelMismatch):
            raise
        except Exception as error:  # noqa: BLE001 (it becomes the reason of a dead letter)
            self._isolate(jobs, error)

    def _commit(self, jobs: Sequence[_Job], prepared: Prepared) -> None:
        stored = self._ingestion.commit(prepared)
        reach("embed.committed")
        self._stream.acknowledge([job.entry for job in jobs])
        reach("embed.acknowledged")
        log.info(
            "batch_stored",
            n_new=stored.n_new,
            n_known=stored.n_known,
            n_embedded=stored.n_embedded,
            seq=stored.seq,
        )
        if stored.n_new or stored.n_embedded:
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
