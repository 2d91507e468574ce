"""Keeps the index equal to the database: load, apply events, save snapshots, rebuild, compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from memory.catalogue import Catalogue
from memory.errors import IndexRefused
from memory.faiss_index import FAISSIndex
from memory.index_replica import IndexReplica
from memory.models import Identity, MemoryId, Seq
from memory.snapshot import Snapshot, SnapshotFolder, seq_of
from memory.store.event_log import EventLog, IndexEvent, read_head
from memory.store.vectors import VectorRow, iterate_vectors, read_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from memory.database import Database

log = structlog.get_logger(__name__)

EVENTS_AT_ONCE = 1000
_SAMPLED_VECTORS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Index against database, at one event. Equal where all three numbers are 0."""

    seq: Seq
    n_memories: int
    n_vectors: int
    n_missing: int  # in the database, not in the index
    n_extra: int  # in the index, not in the database
    n_sampled: int
    n_different: int  # of the sampled vectors, not the same bytes
    examples: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether index and database hold the same."""
        return self.n_missing == self.n_extra == self.n_different == 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "equal": self.equal}


class IndexSync:
    """The owner's side of the index. One thread of one process may use it: the holder of the lock.

    Every step may run twice, and after a kill at any point `IndexSync.open` is right again, since the
    snapshot is only a cache of the database.
    """

    def __init__(
        self,
        *,
        database: Database,
        folder: SnapshotFolder,
        identity: Identity,
        replica: IndexReplica,
        epoch: int,
    ) -> None:
        self.replica = replica
        self.epoch = epoch
        self._database = database
        self._log = EventLog(database)
        self._folder = folder
        self._identity = identity
        self._saved_seq = Seq(-1)

    @classmethod
    def open(cls, *, database: Database, folder: SnapshotFolder, identity: Identity, owner: str) -> IndexSync:
        """Load the newest snapshot, or rebuild where none can be trusted, and take the index over."""
        content, saved = _load_or_rebuild(database, folder, identity)
        epoch = EventLog(database).take_over(owner=owner, applied_seq=content.applied_seq)
        sync = cls(
            database=database, folder=folder, identity=identity, replica=IndexReplica(content), epoch=epoch
        )
        sync._saved_seq = content.applied_seq if saved else Seq(-1)
        return sync

    @property
    def n_unsaved(self) -> int:
        """How many applied events are in no snapshot yet."""
        return self.replica.applied_seq - max(self._saved_seq, 0)

    def apply_next(self) -> int:
        """Apply up to 1,000 further events; return how many there were.

        An event only says "look at this row again", so the newest state is applied, and again is harmless.

        Raises:
            Fenced: another process owns the index now.
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
        self._apply(events)
        self._log.publish_applied(self.replica.applied_seq, epoch=self.epoch)
        return len(events)

    def save_snapshot(self) -> str:
        """Save the index as it stands; return the snapshot's name. Searches go on meanwhile.

        Raises:
            Fenced: another process owns the index now.

        """
        content = self.replica.content
        self._log.publish_applied(content.applied_seq, epoch=self.epoch)
        name = self._folder.save(content, self._identity)
        older = self._folder.kept_before(name)
        prune_to = seq_of(older) if older else Seq(0)
        self._log.commit_snapshot(name=name, seq=content.applied_seq, prune_to=prune_to, epoch=self.epoch)
        self._folder.prune(keep={name, older} if older else {name})
        self._saved_seq = content.applied_seq
        log.info("snapshot_saved", name=name, n_vectors=len(content.index))
        return name

    def rebuild(self, reason: str) -> None:
        """Make a new index from the rows alone, switch to it at once, and save it."""
        log.warning("index_rebuilt", reason=reason)
        self.replica.replace(_rebuild(self._database, self._identity))
        self._saved_seq = Seq(-1)
        self._log.publish_applied(self.replica.applied_seq, epoch=self.epoch)
        self.save_snapshot()

    def compare(self) -> Comparison:
        """Compare the index with the database: every id, and up to 1,000 vectors byte by byte."""
        while self.apply_next():
            pass
        with self._database.snapshot() as connection:
            head = read_head(connection)
            self._apply_up_to(head, connection)
            pages = list(iterate_vectors(connection))
        rows = [row for page in pages for row in page]
        return _compare(self.replica.content, rows)

    def _apply_up_to(self, head: Seq, connection: Connection) -> None:
        """Apply what is left up to `head`, with the rows as this transaction sees them."""
        while (applied := self.replica.applied_seq) < head:
            events = self._log.after(applied, limit=min(head - applied, EVENTS_AT_ONCE))
            ids = _distinct(events)
            self._change(ids, read_vectors(connection, ids), seq=events[-1].seq)

    def _apply(self, events: Sequence[IndexEvent]) -> None:
        ids = _distinct(events)
        with self._database.read() as connection:
            rows = read_vectors(connection, ids)
        self._change(ids, rows, seq=events[-1].seq)

    def _change(self, ids: Sequence[MemoryId], rows: Sequence[VectorRow], *, seq: Seq) -> None:
        live = {row.memory_id for row in rows}
        self.replica.change(
            removed=[i for i in ids if i not in live],
            added=[row.memory_id for row in rows],
            groups=[(row.namespace, row.memory_type) for row in rows],
            vectors=_matrix(rows, dim=self._identity.dim),
            seq=seq,
        )

    def _check_head(self) -> None:
        """With no event left, the clock must stand where the index does."""
        applied = self.replica.applied_seq
        head = self._log.head()
        if head < applied:
            self.rebuild(
                f"the database is at event {head}, the index at {applied}: it was restored from a backup"
            )
        elif head > applied and not self._log.after(applied, limit=1):
            self.rebuild(f"events {applied + 1} to {head} are gone")


def _load_or_rebuild(database: Database, folder: SnapshotFolder, identity: Identity) -> tuple[Snapshot, bool]:
    try:
        name, content = folder.load(identity)
        _check_place(EventLog(database), content.applied_seq)
    except IndexRefused as refusal:
        refused = folder.current()
        if refused:
            log.warning("snapshot_refused", reason=str(refusal), kept=str(folder.quarantine(refused)))
        return _rebuild(database, identity), False
    log.info("snapshot_loaded", name=name, n_vectors=len(content.index), seq=content.applied_seq)
    return content, True


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


def _rebuild(database: Database, identity: Identity) -> Snapshot:
    index, catalogue = FAISSIndex(identity.dim), Catalogue()
    with database.snapshot() as connection:
        head = read_head(connection)
        for rows in iterate_vectors(connection):
            ids = [row.memory_id for row in rows]
            index.add_embeddings(_matrix(rows, dim=identity.dim), ids)
            catalogue.put(ids, [(row.namespace, row.memory_type) for row in rows])
    return Snapshot(index=index, catalogue=catalogue, applied_seq=head)


def _distinct(events: Sequence[IndexEvent]) -> list[MemoryId]:
    return sorted({event.memory_id for event in events})


def _matrix(rows: Sequence[VectorRow], *, dim: int) -> npt.NDArray[np.float32]:
    joined = b"".join(row.embedding for row in rows)
    return np.frombuffer(joined, dtype="<f4").reshape(len(rows), dim)


def _compare(content: Snapshot, rows: Sequence[VectorRow]) -> Comparison:
    in_index = content.index.ids()
    in_database = np.array([row.memory_id for row in rows], dtype=np.int64)
    missing = np.setdiff1d(in_database, in_index)
    extra = np.union1d(np.setdiff1d(in_index, in_database), np.setxor1d(in_index, content.catalogue.ids()))
    common = [row for row in rows if row.memory_id not in set(missing.tolist())]
    sample = common[:: max(1, len(common) // _SAMPLED_VECTORS)]
    vectors = content.index.vectors([row.memory_id for row in sample])
    different = [
        row.memory_id
        for row, vector in zip(sample, vectors, strict=True)
        if vector.astype("<f4").tobytes() != row.embedding
    ]
    examples = [*missing[:5].tolist(), *extra[:5].tolist(), *different[:5]]
    return Comparison(
        seq=content.applied_seq,
        n_memories=len(in_database),
        n_vectors=len(in_index),
        n_missing=len(missing),
        n_extra=len(extra),
        n_sampled=len(sample),
        n_different=len(different),
        examples=tuple(MemoryId(i) for i in examples),
    )
