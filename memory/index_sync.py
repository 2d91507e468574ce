"""The owner's side of the index: takes it over, says how far it is, and saves snapshots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import structlog

from memory.errors import IndexInUse, IndexRefused
from memory.failpoints import reach
from memory.faiss_index import EXACT_UP_TO
from memory.index_building import index_of_rows
from memory.index_follower import IndexFollower, load_snapshot
from memory.index_traces import IndexTraces, n_beyond
from memory.languages import DEFAULT_LANGUAGE
from memory.models import Identity, Seq
from memory.snapshot import Snapshot, SnapshotFolder, seq_of
from memory.store.event_log import EventLog
from memory.store.vectors import read_indexed_ids

if TYPE_CHECKING:
    from collections.abc import Callable

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
        exact_up_to: the most memories for which the index is of the exact form.

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
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        super().__init__(
            database=database, identity=identity, content=content, use_gpu=use_gpu, exact_up_to=exact_up_to
        )
        self.epoch = epoch
        self._folder = folder
        self._saved_seq = Seq(-1)
        self._publish_every_s = publish_every_s
        self._published_at = float("-inf")

    @classmethod
    def open(  # noqa: PLR0913 (what an index may be told)
        cls,
        *,
        database: Database,
        folder: SnapshotFolder,
        identity: Identity,
        owner: str,
        spare: str | None = None,
        use_gpu: bool = False,
        publish_every_s: float = 0,
        exact_up_to: int = EXACT_UP_TO,
        language: str = DEFAULT_LANGUAGE,
    ) -> IndexSync:
        """Load the newest snapshot, or rebuild where none can be trusted, and take the index over.

        Raises:
            IndexInUse: a living owner whose name begins with `spare` has it.

        """
        content, saved = _load_or_rebuild(
            database, folder, identity, use_gpu=use_gpu, exact_up_to=exact_up_to, language=language
        )
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
            exact_up_to=exact_up_to,
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

    def grow(self) -> bool:
        """Do the same as any index that follows; of the larger one, no snapshot is saved yet.

        Raises:
            Fenced: another process owns the index now.
            ModelMismatch: the database's vectors were replaced by another model's.
            ServerAway: the database cannot be reached; again goes on.

        """
        has_grown = super().grow()
        if has_grown:
            self._saved_seq = Seq(-1)
            self.publish()
        return has_grown

    def save_snapshot(self) -> str:
        """Save the index as it stands; return the snapshot's name. Searches go on meanwhile.

        Raises:
            Fenced: another process owns the index now.
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        self.publish()
        content = self.replica.content
        last_event = self._log.mark(content.applied_seq)
        name = self._folder.save(content, self.identity, last_event=last_event)
        older = self._folder.kept_before(name)
        prune_to = seq_of(older) if older else Seq(0)
        if (needed := self._growth.needs_after) is not None:
            prune_to = min(prune_to, needed)
        self._log.commit_snapshot(name=name, seq=content.applied_seq, prune_to=prune_to, epoch=self.epoch)
        reach("snapshot.recorded")
        self._folder.prune(keep={name, older} if older else {name})
        reach("snapshot.pruned")
        self._saved_seq = content.applied_seq
        log.info("snapshot_saved", name=name, n_vectors=len(content.index))
        return name

    def rebuild(self, reason: str) -> None:
        """Make a new index from the rows alone, switch to it at once, and save it."""
        super().rebuild(reason)
        self._saved_seq = Seq(-1)
        self.save_snapshot()

    def let_go(self, *, on_progress: Callable[[], None] = lambda: None) -> IndexTraces:
        """Let go of every memory that is not live: in the index, in both kept snapshots, in the quarantine.

        Snapshots are saved anew only where one holds such a memory, twice, since two are kept; `on_progress`
        is called after each.

        Raises:
            Fenced: another process owns the index now.
            SnapshotFailed: the disk did not take a snapshot; again is harmless.

        """
        with self._at_head() as connection:
            live = read_indexed_ids(connection)
        self.replica.compact()
        if n_beyond(live, *self._folder.held()):
            for _ in range(2):
                self.save_snapshot()
                on_progress()
        content = self.replica.content
        in_index = np.union1d(content.index.ids(), content.catalogue.ids())
        return IndexTraces(
            seq=content.applied_seq,
            n_in_index=n_beyond(live, np.union1d(in_index, content.words.held_ids())),
            n_in_snapshots=n_beyond(live, *self._folder.held()),
            n_quarantined=self._folder.empty_quarantine(),
        )

    def publish(self) -> None:
        """Say in the database how far the index is, and that its owner lives.

        Raises:
            Fenced: another process owns the index now.

        """
        self._log.publish_applied(self.replica.applied_seq, epoch=self.epoch)
        self._published_at = time.monotonic()


def _load_or_rebuild(
    database: Database,
    folder: SnapshotFolder,
    identity: Identity,
    *,
    use_gpu: bool,
    exact_up_to: int,
    language: str,
) -> tuple[Snapshot, bool]:
    try:
        return load_snapshot(database, folder, identity, use_gpu=use_gpu, language=language), True
    except IndexRefused as refusal:
        if folder.has_pointer():
            refused = folder.current()
            kept = str(folder.quarantine(refused)) if refused else None
            log.warning("snapshot_refused", reason=str(refusal), kept=kept)
        content = index_of_rows(
            database, identity, use_gpu=use_gpu, exact_up_to=exact_up_to, language=language
        )
        return content, False
