"""Keeps an index in memory equal to the database, and writes nothing: any number of processes may."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import structlog

from memory.errors import IndexRefused
from memory.faiss_index import EXACT_UP_TO
from memory.index_building import check_model, index_of_rows
from memory.index_comparison import SAMPLED_VECTORS, Comparison, Differences, find_differences
from memory.index_growth import EVENTS_AT_ONCE, Abandoned, Growth, apply, follow
from memory.index_replica import IndexReplica
from memory.languages import DEFAULT_LANGUAGE
from memory.models import Identity, Seq
from memory.snapshot import Snapshot, SnapshotFolder
from memory.store.event_log import EventLog, read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from memory.database import Database

log = structlog.get_logger(__name__)

_OTHER_HISTORY = "the database has another history: re-embedded to and fro, or made anew"


class IndexFollower:
    """An index that follows the database's events. One thread at a time may use it.

    It reads the owner's snapshot where there is a good one, so as to start sooner, and never touches it.
    """

    def __init__(
        self,
        *,
        database: Database,
        identity: Identity,
        content: Snapshot,
        use_gpu: bool,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.replica = IndexReplica(content, model_fingerprint=identity.model_fingerprint)
        self._database = database
        self._log = EventLog(database)
        self.identity = identity
        self._use_gpu = use_gpu
        self.on_progress: Callable[[], None] = _nothing
        """Called now and then within what takes long, such as a rebuild."""
        self._growth = Growth(database, use_gpu=use_gpu, exact_up_to=exact_up_to)

    @classmethod
    def follow(
        cls,
        *,
        database: Database,
        folder: SnapshotFolder,
        identity: Identity,
        use_gpu: bool = False,
        exact_up_to: int = EXACT_UP_TO,
        language: str = DEFAULT_LANGUAGE,
    ) -> IndexFollower:
        """Read the newest snapshot, or make the index from the rows where none can be trusted."""
        try:
            content = load_snapshot(database, folder, identity, use_gpu=use_gpu, language=language)
        except IndexRefused as refusal:
            log.info("snapshot_not_used", reason=str(refusal))
            content = index_of_rows(
                database, identity, use_gpu=use_gpu, exact_up_to=exact_up_to, language=language
            )
        return cls(
            database=database, identity=identity, content=content, use_gpu=use_gpu, exact_up_to=exact_up_to
        )

    def apply_next(self) -> int:
        """Apply up to 1,000 further events; return how many there were.

        An event only says "look at this row again", so the newest state is applied, and again is harmless.

        Raises:
            ModelMismatch: the database's vectors were replaced by another model's.
            ServerAway: the database cannot be reached; nothing was changed, or it is applied again.

        """
        applied = self.replica.applied_seq
        events = self._log.after(applied, limit=EVENTS_AT_ONCE)
        if not events:
            self._check_head()
            return 0
        if events[0].seq != applied + 1 or events[-1].seq != applied + len(events):
            self.rebuild(f"events {applied + 1} to {events[-1].seq} are not contiguous")
            return len(events)
        with self._database.snapshot() as connection:
            is_other = self._is_other_history(connection)
            if not is_other:
                apply(self.replica, events, connection, dim=self.identity.dim)
        if is_other:
            self.rebuild(_OTHER_HISTORY)
        return len(events)

    def catch_up(self) -> None:
        """Apply every event there is."""
        while self.apply_next():
            pass

    def rebuild(self, reason: str) -> None:
        """Make a new index from the rows alone, and switch to it at once."""
        log.warning("index_rebuilt", reason=reason)
        self._growth.give_up(reason)
        self.replica.replace(
            index_of_rows(
                self._database,
                self.identity,
                use_gpu=self._use_gpu,
                exact_up_to=self._growth.exact_up_to,
                language=self.replica.content.words.language,
                on_progress=self.on_progress,
            )
        )

    def grow(self) -> bool:
        """Go over to a larger index if one was made, else have one made if this one is outgrown.

        Call it between two changes, often: it takes no time but for applying the last few events to the
        larger one. Return whether it went over.

        Raises:
            ModelMismatch: the database's vectors were replaced by another model's.
            ServerAway: the database cannot be reached; again goes on.

        """
        made, applied = self._growth.take(self.identity), self.replica.applied_seq
        if made is None:
            self._growth.begin_if_outgrown(self.replica.content, self.identity, applied_seq=applied)
            return False
        try:
            while made.applied_seq < applied:
                follow(made, self._database, self.identity, up_to=applied)
        except Abandoned as reason:
            self._growth.give_up(str(reason))
            return False
        self.replica.replace(made.content)
        self._growth.forget()
        log.info("index_grown", n_vectors=len(made.content.index), seq=made.applied_seq)
        return True

    def close(self) -> None:
        """End what runs beside; the index must not be used any more."""
        self._growth.close()

    def compare(self) -> Comparison:
        """Compare the index with the database: every id, and up to 1,000 vectors byte by byte."""
        return self.differences(n_sampled=SAMPLED_VECTORS, rng=np.random.default_rng()).summed_up()

    def differences(
        self,
        *,
        n_sampled: int | None,
        rng: np.random.Generator,
        on_progress: Callable[[], None] = lambda: None,
    ) -> Differences:
        """Compare the index with the database: every id, and so many vectors byte by byte, all for `None`."""
        with self._at_head() as connection:
            return find_differences(
                self.replica.content,
                connection,
                dim=self.identity.dim,
                n_sampled=n_sampled,
                rng=rng,
                on_progress=on_progress,
            )

    @contextmanager
    def _at_head(self) -> Iterator[Connection]:
        """Open a reading transaction whose instant is the very one at which the index stands."""
        self.catch_up()
        with self._database.snapshot() as connection:
            check_model(connection, self.identity)
            self._apply_up_to(read_head(connection), connection)
            yield connection

    def _apply_up_to(self, head: Seq, connection: Connection) -> None:
        """Apply what is left up to `head`, with the rows as this transaction sees them."""
        while (applied := self.replica.applied_seq) < head:
            events = self._log.after(applied, limit=min(head - applied, EVENTS_AT_ONCE))
            apply(self.replica, events, connection, dim=self.identity.dim)

    def _check_head(self) -> None:
        """With no event left, the clock must stand where the index does, and name the same model."""
        applied = self.replica.applied_seq
        with self._database.read() as connection:
            is_other = self._is_other_history(connection)
            head = read_head(connection)
        if is_other:
            self.rebuild(_OTHER_HISTORY)
        elif head < applied:
            self.rebuild(
                f"the database is at event {head}, the index at {applied}: it was restored from a backup"
            )
        elif head > applied and not self._log.after(applied, limit=1):
            self.rebuild(f"events {applied + 1} to {head} are gone")

    def _is_other_history(self, connection: Connection) -> bool:
        """Whether all vectors were replaced meanwhile; from now on the index belongs to the new ones."""
        stored = check_model(connection, self.identity)
        is_other = stored.lineage != self.identity.lineage
        self.identity = stored
        return is_other


def load_snapshot(
    database: Database, folder: SnapshotFolder, identity: Identity, *, use_gpu: bool, language: str
) -> Snapshot:
    """Return the current snapshot.

    Raises:
        IndexRefused: there is none, anything about it is odd, or the events do not lead on from it.

    """
    name, content = folder.load(identity, use_gpu=use_gpu, language=language)
    _check_place(EventLog(database), content.applied_seq, last_event=folder.last_event(name))
    log.info("snapshot_loaded", name=name, n_vectors=len(content.index), seq=content.applied_seq)
    return content


def _check_place(events: EventLog, applied: Seq, *, last_event: str | None) -> None:
    """Refuse a snapshot from which the events do not lead on to now."""
    head = events.head()
    if applied > head:
        message = f"made at event {applied}, the database is only at {head}: it was restored from a backup"
        raise IndexRefused(message)
    there = events.mark(applied)
    if None not in {last_event, there} and last_event != there:
        message = f"made at event {applied}, which is another one by now: the database was restored and used"
        raise IndexRefused(message)
    following = events.after(applied, limit=1)
    if head > applied and (not following or following[0].seq != applied + 1):
        message = f"made at event {applied}, whose successors are gone"
        raise IndexRefused(message)


def _nothing() -> None:
    pass
