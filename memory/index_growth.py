"""Makes a larger index beside the one that serves, in a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from memory.errors import ModelMismatch, Recoverable
from memory.faiss_index import EXACT_UP_TO, threads
from memory.index_building import check_model, index_of_rows, usable
from memory.index_replica import IndexReplica
from memory.models import Seq
from memory.store.event_log import EventLog
from memory.store.vectors import read_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from memory.database import Database
    from memory.models import Identity, MemoryId
    from memory.snapshot import Snapshot
    from memory.store.event_log import IndexEvent

log = structlog.get_logger(__name__)

EVENTS_AT_ONCE = 1000
_TRY_AGAIN_S = 60.0
_STOP_S = 5.0


class Abandoned(Exception):
    """The index that was being made is of no use any more. Says why."""


class Growth:
    """Makes the index's next form from the rows while the present one serves, and follows the events.

    Only the thread that changes the index calls it. What fails is thrown away, and tried again later.

    Args:
        database: what the index is made of.
        use_gpu: whether a GPU answers searches.
        exact_up_to: the most memories for which the exact form is right.
        try_again_s: how long to wait after a failure.

    """

    def __init__(
        self,
        database: Database,
        *,
        use_gpu: bool,
        exact_up_to: int = EXACT_UP_TO,
        try_again_s: float = _TRY_AGAIN_S,
    ) -> None:
        self.exact_up_to = exact_up_to
        self._database = database
        self._use_gpu = use_gpu
        self._try_again_s = try_again_s
        self._making: _Making | None = None
        self._not_before = float("-inf")

    @property
    def needs_after(self) -> Seq | None:
        """The event behind which none may be pruned for now, where there is one."""
        return None if self._making is None else self._making.needs_after

    def begin_if_outgrown(self, content: Snapshot, identity: Identity, *, applied_seq: Seq) -> None:
        """Begin to make a larger one, unless that is under way, or just failed."""
        if self._making is not None or not content.outgrown(exact_up_to=self.exact_up_to):
            return
        if time.monotonic() < self._not_before:
            return
        log.info("index_growth_begun", n_vectors=len(content.index), n_further=len(content.windows))
        self._making = _Making(
            self._database,
            identity,
            use_gpu=self._use_gpu,
            exact_up_to=self.exact_up_to,
            language=content.words.language,
            needs_after=applied_seq,
        )
        self._making.start()

    def take(self, identity: Identity) -> IndexReplica | None:
        """Return what was made, close to the newest event, for an index of this identity; `None` if nothing.

        It stays here until `forget` is called: so long no event is pruned that it lacks.
        """
        if self._making is None or self._making.is_alive():
            return None
        if self._making.made is None or self._making.identity != identity:
            self.give_up("it could not be made" if self._making.made is None else "the vectors were replaced")
            return None
        return self._making.made

    def forget(self) -> None:
        """Forget what was taken."""
        self._making = None

    def give_up(self, reason: str) -> None:
        """Throw away what is being made or was; another one is made later."""
        if self._making is None:
            return
        self._making.stop()
        self._making = None
        self._not_before = time.monotonic() + self._try_again_s
        log.warning("index_growth_given_up", reason=reason)

    def close(self) -> None:
        """End the other thread; it may take a moment longer."""
        if self._making is not None:
            self._making.stop()
            self._making.join(timeout=_STOP_S)
            self._making = None


class _Making(threading.Thread):
    """One attempt. It ends by itself when it is told to, or when the program's main thread has ended."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        *,
        use_gpu: bool,
        exact_up_to: int,
        language: str,
        needs_after: Seq,
    ) -> None:
        # Not a daemon: one that is torn out of FAISS at the program's end would bring that down.
        super().__init__(name="index-growth", daemon=False)
        self.identity = identity
        self.needs_after = needs_after
        self.made: IndexReplica | None = None
        self._database = database
        self._use_gpu = use_gpu
        self._exact_up_to = exact_up_to
        self._language = language
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Say that it is of no use any more."""
        self._stopping.set()

    def run(self) -> None:
        """Make it, and follow the events until the newest is close."""
        began = time.monotonic()
        try:
            with threads(1):  # the other cores are the searches'
                self.made = self._make()
            took_s = round(time.monotonic() - began, 1)
            log.info("index_growth_made", n_vectors=len(self.made.content.index), took_s=took_s)
        except Abandoned as reason:
            log.info("index_growth_abandoned", reason=str(reason))
        except (Recoverable, ModelMismatch) as error:
            log.warning("index_growth_failed", reason=str(error))
        except Exception:  # the edge of a thread: without it the present index goes on serving
            if threading.main_thread().is_alive():  # else nothing works any more
                log.exception("index_growth_failed")

    def _make(self) -> IndexReplica:
        content = index_of_rows(
            self._database,
            self.identity,
            use_gpu=self._use_gpu,
            exact_up_to=self._exact_up_to,
            language=self._language,
            n_threads=1,
            on_progress=self._check,
        )
        replica = IndexReplica(content, model_fingerprint=self.identity.model_fingerprint)
        # Where events come faster than they are applied here, the rest is left to who takes it.
        n_behind = EventLog(self._database).head() - replica.applied_seq
        for _ in range(2 + 2 * n_behind // EVENTS_AT_ONCE):
            self._check()
            if follow(replica, self._database, self.identity) < EVENTS_AT_ONCE:
                break
        return replica

    def _check(self) -> None:
        if self._stopping.is_set() or not threading.main_thread().is_alive():
            raise Abandoned("it is not wanted any more")


def follow(replica: IndexReplica, database: Database, identity: Identity, *, up_to: Seq | None = None) -> int:
    """Apply up to 1,000 further events, none behind `up_to`, to an index that is being made.

    Return how many there were.

    Raises:
        Abandoned: they do not lead on from it, or the vectors were replaced.
        ModelMismatch: the vectors were replaced by another model's.
        ServerAway: the database cannot be reached.

    """
    applied = replica.applied_seq
    limit = EVENTS_AT_ONCE if up_to is None else min(EVENTS_AT_ONCE, up_to - applied)
    events = EventLog(database).after(applied, limit=limit)
    if not events and up_to is None:
        return 0
    if not events or events[0].seq != applied + 1 or events[-1].seq != applied + len(events):
        message = f"the events behind {applied} are gone"
        raise Abandoned(message)
    with database.snapshot() as connection:
        if check_model(connection, identity).lineage != identity.lineage:
            raise Abandoned("the vectors were replaced")
        apply(replica, events, connection, dim=identity.dim)
    return len(events)


def apply(replica: IndexReplica, events: Sequence[IndexEvent], connection: Connection, *, dim: int) -> None:
    """Apply events to an index, with the rows as this transaction sees them."""
    ids = distinct(events)
    found = usable(read_vectors(connection, ids), dim=dim)
    live = {row.memory_id for row in found.rows}
    replica.change(
        removed=[i for i in ids if i not in live],
        added=[row.memory_id for row in found.rows],
        groups=[(row.namespace, row.memory_type) for row in found.rows],
        vectors=found.vectors,
        counts=found.counts,
        texts=[row.text for row in found.rows],
        seq=events[-1].seq,
    )


def distinct(events: Sequence[IndexEvent]) -> list[MemoryId]:
    """Return the memories of these events, ascending."""
    return sorted({event.memory_id for event in events})
