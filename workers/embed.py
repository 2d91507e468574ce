"""The drain: takes raw memories off the stream, embeds and stores them, and acknowledges last."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from memory.errors import Recoverable
from memory.stream import LANES
from workers.batches import Batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memory.broker import Nudger
    from memory.ingestion import Ingestion
    from memory.settings import Settings
    from memory.store.dead_letters import DeadLetters
    from memory.stream import IngestStream, Pending

log = structlog.get_logger(__name__)


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
        self._batches = Batches(
            consumer=consumer,
            settings=settings,
            stream=stream,
            ingestion=ingestion,
            dead_letters=dead_letters,
            nudger=nudger,
            on_progress=on_progress,
        )
        self._nudger = nudger
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._turn = threading.Lock()
        self._serves_fast_lane = False
        self.ran_at = time.monotonic()
        """When it last ran, by the monotonic clock."""

    def run(self) -> int:
        """Store what waits, until nothing does or the budget is spent; return how many entries.

        Threads take turns.

        Raises:
            ModelMismatch: another model serves by now. What was read stays unacknowledged.

        At least once: an entry is acknowledged only after its memory, or its dead letter, is committed.

        """
        with self._turn:
            try:
                return self._run()
            finally:
                self.ran_at = time.monotonic()

    def between_passes(self) -> None:
        """Keep what is in hand, and let a new single memory pass a bulk batch. Call it after each pass.

        Raises:
            Recoverable: the worker is to stop, or a server is away: the batch stays unacknowledged.

        """
        if not self._turn.locked():  # the model is asked for something else
            return
        self._batches.keep_in_hand()
        if self._serves_fast_lane:
            return
        if self._should_stop():
            raise Recoverable("the worker is to stop")
        self._store_fast_lane()

    def _run(self) -> int:
        self._on_progress()
        n_done = 0
        try:
            with self._batches.watched():
                self._stream.clear_nudge("embed")
                try:
                    n_done += self._take_back()
                    n_done += self._take_new()
                finally:
                    self._batches.settle()
        except Recoverable as error:
            # The ticker comes back in a moment; what was read stays unacknowledged.
            log.warning("drain_interrupted", reason=str(error))
        return n_done

    def _take_new(self) -> int:
        deadline = time.monotonic() + self._settings.drain_budget_s
        n_done = 0
        while not self._should_stop() and time.monotonic() < deadline:
            entries = self._stream.read_new(self._consumer, count=self._settings.embed_batch)
            if not entries:
                return n_done
            if len(entries) == self._settings.embed_batch:
                self._nudger.nudge("embed")  # there may be more: wake another worker
            self._batches.begin(entries)
            n_done += len(entries)
        self._nudger.nudge("embed")
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
                    n_done += self._store_fast_lane()
                    entries = self._stream.claim(group, consumer=self._consumer, min_idle_s=min_idle_s)
                    self._batches.finish(entries)  # committed before the next: that one may be the killer
                    n_done += len(entries)
        return n_done

    def _store_fast_lane(self) -> int:
        """Let no new single memory wait for what is under way or was left behind, which may be much."""
        entries = self._stream.read_new(self._consumer, count=self._settings.embed_batch, lanes=("fast",))
        if not entries:
            return 0
        self._serves_fast_lane = True
        try:
            self._batches.finish(entries)
        finally:
            self._serves_fast_lane = False
        return len(entries)

    def _groups(self, pending: Sequence[Pending]) -> list[list[Pending]]:
        """Split by how often each was delivered: the more often, the fewer go together, at last one."""
        groups: list[list[Pending]] = []
        for p in sorted(pending, key=lambda p: p.n_deliveries):
            size = group_size(self._settings, n_deliveries=p.n_deliveries)
            if groups and len(groups[-1]) < size and groups[-1][0].n_deliveries == p.n_deliveries:
                groups[-1].append(p)
            else:
                groups.append([p])
        return groups


def group_size(settings: Settings, *, n_deliveries: int) -> int:
    """Return how many may go together that were delivered so often: at the last delivery each is alone."""
    halvings = -(-settings.embed_batch.bit_length() // max(1, settings.max_deliveries - 1))
    return max(1, settings.embed_batch >> (halvings * n_deliveries))
