"""The owner's thread: applies events, saves snapshots, and runs what else must not be interleaved."""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from memory.audit import Pace
from memory.errors import ModelMismatch, Recoverable

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.heartbeat import Heartbeat
    from memory.index_sync import IndexSync
    from memory.search import Searcher
    from memory.settings import Settings
    from memory.stream import IngestStream

log = structlog.get_logger(__name__)

_SHOW_LIFE_EVERY_S = 20
T = TypeVar("T")


class IndexOwner(threading.Thread):
    """Changes the index, alone. If it cannot go on, the whole process ends and is started again.

    Args:
        sync: the index.
        stream: where a nudge is taken note of.
        searcher: whose recalls are written down.
        settings: how often what is done.
        heartbeat: touched at each turn.
        check: called at each turn; raises ModelMismatch where the configured model is known not to be the
            database's.
        confirm: the same, but finds out whether it is.
        audit: called at each turn with the pace to keep; does nothing unless an audit is due.

    """

    def __init__(
        self,
        *,
        sync: IndexSync,
        stream: IngestStream,
        searcher: Searcher,
        settings: Settings,
        heartbeat: Heartbeat,
        check: Callable[[], object],
        confirm: Callable[[], object],
        audit: Callable[[Pace], None],
    ) -> None:
        super().__init__(name="index-owner", daemon=True)
        self._sync = sync
        self._stream = stream
        self._searcher = searcher
        self._settings = settings
        self._heartbeat = heartbeat
        self._check = check
        self._confirm = confirm
        self._audit = audit
        self.pace = Pace(pause=self._breathe, on_progress=self._show_progress)
        sync.on_progress = self._show_progress
        self._wake = threading.Event()
        self._wake.set()  # there may be events already
        self._stopping = threading.Event()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._last_snapshot = time.monotonic()
        self._shown_at = time.monotonic()

    def wake(self) -> None:
        """Say that there may be events."""
        self._wake.set()

    def call(self, function: Callable[[], T], *, timeout_s: float) -> T:
        """Run `function` between two changes of the index, in the owner's thread; return its result."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        self._wake.set()
        return future.result(timeout=timeout_s)

    def stop(self, *, timeout_s: float) -> None:
        """Apply nothing more, save a snapshot, and end."""
        self._stopping.set()
        self._wake.set()
        self.join(timeout=timeout_s)
        self._sync.close()

    def run(self) -> None:
        """Go on until told to stop."""
        try:
            while not self._stopping.is_set():
                self._turn()
            self._save_last()
        except ModelMismatch as error:
            # All memories were embedded anew, with another model. A start with the old one is refused.
            log.critical("model_replaced", reason=str(error))
            os._exit(os.EX_CONFIG)
        except BaseException:
            # Without its owner the index would stand still unseen. A restart rebuilds what is needed.
            log.exception("index_owner_failed")
            os._exit(os.EX_SOFTWARE)

    def _turn(self) -> None:
        self._heartbeat.touch()
        self._wake.wait(timeout=self._settings.tick_s)
        self._wake.clear()
        try:
            self._stream.clear_nudge("index")
        except Recoverable as error:
            log.warning("nudge_not_cleared", reason=str(error))
        try:
            self._check()
            self._apply_all()
            self._sync.grow()
            self._run_calls()
            self._save_when_due()
            self._show_life()
            self._searcher.note_recalls()
            self._audit(self.pace)
        except Recoverable as error:
            log.warning("index_turn_interrupted", reason=str(error))
        except ModelMismatch as error:
            self._confirm()  # raises it too, unless the configured model is the new one
            log.critical("index_outdated", reason=str(error))
            os._exit(os.EX_TEMPFAIL)  # start again: with an index of the new model's vectors

    def _breathe(self) -> None:
        """Between two steps of an audit: show life, and apply what there is."""
        if self._stopping.is_set():
            raise Recoverable("the indexer stops: ask again when it is back")
        self._show_progress()
        self._apply_all()

    def _show_progress(self) -> None:
        self._heartbeat.touch()
        self._show_life()

    def _apply_all(self) -> None:
        n_applied = 0
        while not self._stopping.is_set() and (n := self._sync.apply_next()):
            n_applied += n
            self._sync.grow()
            self._heartbeat.touch()
            self._save_when_due()
        if n_applied:
            log.info("events_applied", n=n_applied, seq=self._sync.replica.applied_seq)

    def _save_when_due(self) -> None:
        n_unsaved = self._sync.n_unsaved
        waited_s = time.monotonic() - self._last_snapshot
        often_enough = n_unsaved < self._settings.snapshot_every_events
        if n_unsaved == 0 or (often_enough and waited_s < self._settings.snapshot_every_s):
            return
        self._last_snapshot = time.monotonic()  # one that fails is tried again when the next one is due
        self._sync.save_snapshot()

    def _save_last(self) -> None:
        try:
            if self._sync.n_unsaved:
                self._sync.save_snapshot()
        except Recoverable as error:
            log.warning("last_snapshot_not_saved", reason=str(error))

    def _show_life(self) -> None:
        """Say in the database that its index has an owner, so that no library takes it over."""
        if time.monotonic() - self._shown_at >= _SHOW_LIFE_EVERY_S:
            self._sync.publish()
            self._shown_at = time.monotonic()

    def _run_calls(self) -> None:
        while not self._calls.empty():
            function, future = self._calls.get()
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 (the caller's to handle)
                future.set_exception(error)
