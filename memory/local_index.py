"""The index inside a single process: owned where nobody else owns it, else followed."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from typing import TYPE_CHECKING

import structlog

from memory.errors import Fenced, IndexInUse, ModelMismatch, Recoverable, SettingsError, SnapshotFailed
from memory.faiss_index import EXACT_UP_TO
from memory.file_lock import FileLock
from memory.index_follower import IndexFollower
from memory.index_sync import INDEXER, IndexSync
from memory.languages import DEFAULT_LANGUAGE
from memory.snapshot import SnapshotFolder
from memory.store.event_log import EventLog

if TYPE_CHECKING:
    from pathlib import Path

    from memory.database import Database
    from memory.index_comparison import Comparison
    from memory.index_replica import IndexReplica
    from memory.models import Identity

log = structlog.get_logger(__name__)

_PUBLISH_EVERY_S = 1.0  # nobody waits for it here


class LocalIndex:
    """An index for the threads of one process. The first process on a directory owns it and saves it.

    Any other one follows the database just as closely, with an index of its own in memory, and leaves
    the files alone. Where two processes have a directory each, the later one owns the index in the
    database's books, and the earlier one follows and saves for itself; so does every one beside a living
    indexer of the pipeline.

    Args:
        directory: of the snapshots.
        database: what the index is made of.
        identity: what its vectors belong to.
        use_gpu: let a GPU answer searches.
        snapshot_every_events: changes after which the owner saves a snapshot by itself.
        exact_up_to: the most memories for which the index is of the exact form.
        language: of the words, one of `memory.languages.LANGUAGES`.

    Raises:
        SettingsError: the directory is no directory, or cannot be written.

    """

    def __init__(
        self,
        directory: Path,
        *,
        database: Database,
        identity: Identity,
        use_gpu: bool,
        snapshot_every_events: int,
        exact_up_to: int = EXACT_UP_TO,
        language: str = DEFAULT_LANGUAGE,
    ) -> None:
        self._directory = directory
        self._database = database
        self._use_gpu = use_gpu
        self._snapshot_every_events = snapshot_every_events
        self._next_snapshot_at = snapshot_every_events
        self._exact_up_to = exact_up_to
        self._language = language
        self._saved_for_itself = -1
        self._identity = identity
        self._turn = threading.RLock()
        try:
            self._lock = FileLock(directory / "owner.lock")
            self._folder = SnapshotFolder(directory)
        except OSError as error:
            message = f"FAISS_INDEX_PATH = {str(directory)!r}: must be a directory to write to ({error})"
            raise SettingsError(message) from error
        # One that is dropped and never released must not keep the directory for the life of the process.
        self._release = weakref.finalize(self, self._lock.release)
        try:
            self._holds_directory = self._lock.try_acquire()
            self._index = self._open()
            self._index.catch_up()
        except BaseException:
            self._release()
            raise

    @property
    def is_owner(self) -> bool:
        """Whether this process holds the directory, and saves the index there."""
        return self._holds_directory

    def current(self, model_fingerprint: str) -> IndexReplica:
        """Return the index of this model with every committed change applied, whoever made it.

        Raises:
            ModelMismatch: the vectors, here or in the database, are another model's by now.
            ServerAway: the database cannot be reached.

        """
        with self._turn:
            if model_fingerprint != self._identity.model_fingerprint:
                raise ModelMismatch(stored=self._identity.model_fingerprint, configured=model_fingerprint)
            self._catch_up()
            return self._index.replica

    def hurry(self) -> None:
        """Apply what was just committed, so that the next search need not; what fails is left to that one."""
        try:
            with self._turn:
                self._catch_up()
        except (Recoverable, ModelMismatch) as error:
            log.warning("index_lags", reason=str(error))

    def save(self) -> None:
        """Save a snapshot of every change so far.

        Raises:
            IndexInUse: another process holds the directory.
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        with self._turn:
            if not self._holds_directory and self._lock.try_acquire():  # who held it is gone
                self._holds_directory, self._identity = True, self._index.identity
                self._take(self._open())
            self._catch_up()
            if not self._holds_directory:
                message = f"the index in {self._directory} is owned by another process, which saves it"
                raise IndexInUse(message)
            try:
                if isinstance(self._index, IndexSync) and self._index.n_unsaved:
                    self._index.save_snapshot()
            except Fenced as error:
                self._step_down(error)
            if not isinstance(self._index, IndexSync):
                self._save_for_itself()

    def switch(self, identity: Identity) -> None:
        """Make the index anew for the database's new model."""
        with self._turn:
            self._identity = identity
            self._take(self._open())
            self._index.catch_up()

    def compare(self) -> Comparison:
        """Compare the index with the database."""
        with self._turn:
            self._catch_up()
            return self._index.compare()

    def release(self) -> None:
        """Let another process own the index; this one must not be used any more."""
        self._index.close()
        self._release()

    def _take(self, index: IndexFollower) -> None:
        self._index.close()
        self._index = index

    def _open(self) -> IndexFollower:
        if self._holds_directory:
            with contextlib.suppress(IndexInUse):  # it follows the pipeline's indexer, and leaves it alone
                return IndexSync.open(
                    database=self._database,
                    folder=self._folder,
                    identity=self._identity,
                    owner=f"library {socket.gethostname()}:{os.getpid()}",
                    spare=INDEXER,
                    use_gpu=self._use_gpu,
                    publish_every_s=_PUBLISH_EVERY_S,
                    exact_up_to=self._exact_up_to,
                    language=self._language,
                )
        log.info("index_followed", reason="another process owns it", directory=str(self._directory))
        return IndexFollower.follow(
            database=self._database,
            folder=self._folder,
            identity=self._identity,
            use_gpu=self._use_gpu,
            exact_up_to=self._exact_up_to,
            language=self._language,
        )

    def _catch_up(self) -> None:
        try:
            self._index.catch_up()
            self._index.grow()
            self._save_when_due()
        except Fenced as error:
            self._step_down(error)
            self._index.catch_up()

    def _save_when_due(self) -> None:
        if not isinstance(self._index, IndexSync) or self._index.n_unsaved < self._next_snapshot_at:
            return
        self._next_snapshot_at = self._snapshot_every_events
        try:
            self._index.save_snapshot()
        except SnapshotFailed as error:
            self._next_snapshot_at += self._index.n_unsaved
            log.warning("snapshot_not_saved", reason=str(error))

    def _step_down(self, error: Fenced) -> None:
        """Follow from now on: another process owns the index in the database, in another directory."""
        log.warning("index_followed", reason=str(error), directory=str(self._directory))
        self._take(
            IndexFollower(
                database=self._database,
                identity=self._index.identity,
                content=self._index.replica.content,
                use_gpu=self._use_gpu,
                exact_up_to=self._exact_up_to,
            )
        )

    def _save_for_itself(self) -> None:
        """Save a snapshot that the database does not know of: it only makes the next start here quicker."""
        content = self._index.replica.content
        if content.applied_seq == self._saved_for_itself:
            return
        last_event = EventLog(self._database).mark(content.applied_seq)
        name = self._folder.save(content, self._index.identity, last_event=last_event)
        older = self._folder.kept_before(name)
        self._folder.prune(keep={name, older} if older else {name})
        self._saved_for_itself = content.applied_seq
