"""The owner's side of the index: takes it over, says how far it is, and saves snapshots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from memory.errors import IndexInUse, IndexRefused
from memory.index_follower import IndexFollower, index_of_rows, load_snapshot
from memory.models import Identity, Seq
from memory.snapshot import Snapshot, SnapshotFolder, seq_of
from memory.store.event_log import EventLog

if TYPE_CHECKING:
    from memory.database import Database

log = structlog.get_logger(__name__)

INDEXER = "indexer "
"""How the name of an owner begins that is the pipeline's indexer. It shows itself more than once a minute."""


class IndexSync(IndexFollower):
    """The index of its one owner: the holder of the lock on its directory. One thread at a time may use it.

    Every step may run twice, and after a kill at any point `IndexSync.open` is right again, since the
    snapshot is only a cache of the database.

    Args:
        database: what the index is made of.
        identity: what its vectors belong to.
        content: the index as it was loaded.
        use_gpu: whether a GPU answers searches.
        folder: where snapshots lie.
        epoch: the owner's; an earlier one is fenced.
        publish_every_s: progress is written to the database at most this often; 0: at each step.

    """

    def __init__(
        self,
        *,
        database: Database,
        identity: Identity,
        content: Snapshot,
        use_gpu: bool,
        folder: SnapshotFolder,
        epoch: int,
        publish_every_s: float,
    ) -> None:
        super().__init__(database=database, identity=identity, content=content, use_gpu=use_gpu)
        self.epoch = epoch
        self._folder = folder
        self._saved_seq = Seq(-1)
        self._publish_every_s = publish_every_s
        self._published_at = float("-inf")

    @classmethod
    def open(
        cls,
        *,
        database: Database,
        folder: SnapshotFolder,
        identity: Identity,
        owner: str,
        spare: str | None = None,
        use_gpu: bool = False,
        publish_every_s: float = 0,
    ) -> IndexSync:
        """Load the newest snapshot, or rebuild where none can be trusted, and take the index over.

        Raises:
            IndexInUse: a living owner whose name begins with `spare` has it.

        """
        content, saved = _load_or_rebuild(database, folder, identity, use_gpu=use_gpu)
        epoch = EventLog(database).take_over(owner=owner, applied_seq=content.applied_seq, spare=spare)
        if epoch is None:
            message = f"the index of this database is owned by {EventLog(database).progress().owner}"
            raise IndexInUse(message)
        sync = cls(
            database=database,
            identity=identity,
            content=content,
            use_gpu=use_gpu,
            folder=folder,
            epoch=epoch,
            publish_every_s=publish_every_s,
        )
        sync._saved_seq = content.applied_seq if saved else Seq(-1)
        return sync

    @property
    def n_unsaved(self) -> int:
        """How many applied events are in no snapshot yet."""
        return self.replica.applied_seq - max(self._saved_seq, 0)

    def apply_next(self) -> int:
        """Apply up to 1,000 further events and say so in the database; return how many there were.

        Raises:
            Fenced: another process owns the index now.
            ModelMismatch: the database's vectors were replaced by another model's.
            ServerAway: the database cannot be reached; nothing was changed, or it is applied again.

        """
        n = super().apply_next()
        if n and time.monotonic() - self._published_at >= self._publish_every_s:
            self.publish()
        return n

    def save_snapshot(self) -> str:
        """Save the index as it stands; return the snapshot's name. Searches go on meanwhile.

        Raises:
            Fenced: another process owns the index now.
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        self.publish()
        content = self.replica.content
        name = self._folder.save(content, self.identity)
        older = self._folder.kept_before(name)
        prune_to = seq_of(older) if older else Seq(0)
        self._log.commit_snapshot(name=name, seq=content.applied_seq, prune_to=prune_to, epoch=self.epoch)
        self._folder.prune(keep={name, older} if older else {name})
        self._saved_seq = content.applied_seq
        log.info("snapshot_saved", name=name, n_vectors=len(content.index))
        return name

    def rebuild(self, reason: str) -> None:
        """Make a new index from the rows alone, switch to it at once, and save it."""
        super().rebuild(reason)
        self._saved_seq = Seq(-1)
        self.save_snapshot()

    def publish(self) -> None:
        """Say in the database how far the index is, and that its owner lives.

        Raises:
            Fenced: another process owns the index now.

        """
        self._log.publish_applied(self.replica.applied_seq, epoch=self.epoch)
        self._published_at = time.monotonic()


def _load_or_rebuild(
    database: Database, folder: SnapshotFolder, identity: Identity, *, use_gpu: bool
) -> tuple[Snapshot, bool]:
    try:
        return load_snapshot(database, folder, identity, use_gpu=use_gpu), True
    except IndexRefused as refusal:
        refused = folder.current()
        if refused:
            log.warning("snapshot_refused", reason=str(refusal), kept=str(folder.quarantine(refused)))
        return index_of_rows(database, identity, use_gpu=use_gpu), False
