"""Keeps an index in memory equal to the database, and writes nothing: any number of processes may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import structlog

from memory.catalogue import Catalogue
from memory.errors import IndexRefused, ModelMismatch
from memory.faiss_index import FAISSIndex
from memory.index_comparison import Comparison, compare
from memory.index_replica import IndexReplica
from memory.models import Identity, MemoryId, Seq
from memory.snapshot import Snapshot, SnapshotFolder
from memory.store.event_log import EventLog, IndexEvent, read_head, read_identity
from memory.store.vectors import VectorRow, iterate_vectors, read_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from memory.database import Database

log = structlog.get_logger(__name__)

EVENTS_AT_ONCE = 1000
_LENGTH_TOLERANCE = 1e-3
_OTHER_HISTORY = "the database has another history: re-embedded to and fro, or made anew"


class IndexFollower:
    """An index that follows the database's events. One thread at a time may use it.

    It reads the owner's snapshot where there is a good one, so as to start sooner, and never touches it.
    """

    def __init__(self, *, database: Database, identity: Identity, content: Snapshot, use_gpu: bool) -> None:
        self.replica = IndexReplica(content)
        self._database = database
        self._log = EventLog(database)
        self.identity = identity
        self._use_gpu = use_gpu

    @classmethod
    def follow(
        cls, *, database: Database, folder: SnapshotFolder, identity: Identity, use_gpu: bool = False
    ) -> IndexFollower:
        """Read the newest snapshot, or make the index from the rows where none can be trusted."""
        try:
            content = load_snapshot(database, folder, identity, use_gpu=use_gpu)
        except IndexRefused as refusal:
            log.info("snapshot_not_used", reason=str(refusal))
            content = index_of_rows(database, identity, use_gpu=use_gpu)
        return cls(database=database, identity=identity, content=content, use_gpu=use_gpu)

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
        ids = _distinct(events)
        with self._database.snapshot() as connection:
            is_other = self._is_other_history(connection)
            rows = [] if is_other else read_vectors(connection, ids)
        if is_other:
            self.rebuild(_OTHER_HISTORY)
        else:
            self._change(ids, rows, seq=events[-1].seq)
        return len(events)

    def catch_up(self) -> None:
        """Apply every event there is."""
        while self.apply_next():
            pass

    def rebuild(self, reason: str) -> None:
        """Make a new index from the rows alone, and switch to it at once."""
        log.warning("index_rebuilt", reason=reason)
        self.replica.replace(index_of_rows(self._database, self.identity, use_gpu=self._use_gpu))

    def compare(self) -> Comparison:
        """Compare the index with the database: every id, and up to 1,000 vectors byte by byte."""
        self.catch_up()
        with self._database.snapshot() as connection:
            check_model(connection, self.identity)
            head = read_head(connection)
            self._apply_up_to(head, connection)
            pages = list(iterate_vectors(connection))
        rows = [row for page in pages for row in page]
        return compare(self.replica.content, rows)

    def _apply_up_to(self, head: Seq, connection: Connection) -> None:
        """Apply what is left up to `head`, with the rows as this transaction sees them."""
        while (applied := self.replica.applied_seq) < head:
            events = self._log.after(applied, limit=min(head - applied, EVENTS_AT_ONCE))
            ids = _distinct(events)
            self._change(ids, read_vectors(connection, ids), seq=events[-1].seq)

    def _change(self, ids: Sequence[MemoryId], rows: Sequence[VectorRow], *, seq: Seq) -> None:
        usable, vectors = _usable(rows, dim=self.identity.dim)
        live = {row.memory_id for row in usable}
        self.replica.change(
            removed=[i for i in ids if i not in live],
            added=[row.memory_id for row in usable],
            groups=[(row.namespace, row.memory_type) for row in usable],
            vectors=vectors,
            seq=seq,
        )

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
    database: Database, folder: SnapshotFolder, identity: Identity, *, use_gpu: bool
) -> Snapshot:
    """Return the current snapshot.

    Raises:
        IndexRefused: there is none, anything about it is odd, or the events do not lead on from it.

    """
    name, content = folder.load(identity, use_gpu=use_gpu)
    _check_place(EventLog(database), content.applied_seq)
    log.info("snapshot_loaded", name=name, n_vectors=len(content.index), seq=content.applied_seq)
    return content


def index_of_rows(database: Database, identity: Identity, *, use_gpu: bool) -> Snapshot:
    """Make the index from the rows alone.

    Raises:
        ModelMismatch: the rows' vectors come from another model.

    """
    index, catalogue = FAISSIndex(identity.dim, use_gpu=use_gpu), Catalogue()
    with database.snapshot() as connection:
        check_model(connection, identity)
        head = read_head(connection)
        for rows in iterate_vectors(connection):
            usable, vectors = _usable(rows, dim=identity.dim)
            ids = [row.memory_id for row in usable]
            index.add_embeddings(vectors, ids)
            catalogue.put(ids, [(row.namespace, row.memory_type) for row in usable])
    return Snapshot(index=index, catalogue=catalogue, applied_seq=head)


def check_model(connection: Connection, identity: Identity) -> Identity:
    """Return what the database's vectors belong to, as this transaction sees it.

    Raises:
        ModelMismatch: they are another model's.

    """
    stored = read_identity(connection)
    if stored is None or stored.model_fingerprint != identity.model_fingerprint:
        raise ModelMismatch(
            stored=stored.model_fingerprint if stored else None, configured=identity.model_fingerprint
        )
    return stored


def _check_place(events: EventLog, applied: Seq) -> None:
    """Refuse a snapshot from which the events do not lead on to now."""
    head = events.head()
    if applied > head:
        message = f"made at event {applied}, the database is only at {head}: it was restored from a backup"
        raise IndexRefused(message)
    following = events.after(applied, limit=1)
    if head > applied and (not following or following[0].seq != applied + 1):
        message = f"made at event {applied}, whose successors are gone"
        raise IndexRefused(message)


def _distinct(events: Sequence[IndexEvent]) -> list[MemoryId]:
    return sorted({event.memory_id for event in events})


def _usable(rows: Sequence[VectorRow], *, dim: int) -> tuple[Sequence[VectorRow], npt.NDArray[np.float32]]:
    """Return the rows with a whole vector of length 1, and these as float32 (n, d).

    Another one can only come of damage to the database. It must not keep all the others from being
    found; a comparison shows its memory as missing.
    """
    whole = [row for row in rows if len(row.embedding) == 4 * dim]
    vectors = np.frombuffer(b"".join(row.embedding for row in whole), dtype="<f4").reshape(len(whole), dim)
    good = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _LENGTH_TOLERANCE  # which no NaN is
    if len(whole) == len(rows) and good.all():
        return rows, vectors
    usable = [row for row, is_good in zip(whole, good, strict=True) if is_good]
    damaged = {row.memory_id for row in rows} - {row.memory_id for row in usable}
    log.error("vectors_damaged", memory_ids=sorted(damaged)[:10], n=len(damaged))
    return usable, vectors[good]
