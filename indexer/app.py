"""The indexer's composition root: take the lock, load the index, then answer."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals

from indexer.owner import IndexOwner
from indexer.tasks import register
from memory.broker import QueueName, make_celery, run_worker
from memory.database import Database
from memory.embedding import EmbeddingModel
from memory.errors import ModelMismatch
from memory.faiss_index import set_threads
from memory.file_lock import FileLock
from memory.heartbeat import Heartbeat
from memory.index_sync import INDEXER, IndexSync
from memory.logs import configure_logging
from memory.replies import Replies
from memory.search import Searcher
from memory.snapshot import SnapshotFolder
from memory.store.associations import Associations
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from memory.stream import IngestStream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from memory.models import Identity
    from memory.settings import Settings

log = structlog.get_logger(__name__)

NAME = "indexer"
SEARCH_THREADS = 4
_STOP_TIMEOUT_S = 8


def run_indexer(settings: Settings) -> int:
    """Own the index and answer searches until SIGTERM; return the exit code.

    Waits first while another process owns the index.
    """
    configure_logging(level=settings.log_level, process=NAME)
    heartbeat = Heartbeat(settings.home, NAME)
    database = Database(settings.database_url)
    database.upgrade()
    _take_lock(settings, heartbeat)
    set_threads(1)
    model = QueryModel(settings)
    sync = _open(settings, database, model)
    searcher = Searcher(
        replica=lambda: sync.replica,
        store=MemoryStore(database),
        associations=Associations(database),
        embed_query=lambda query: model.embed(query, of=sync.identity),
    )
    owner = IndexOwner(
        sync=sync,
        stream=IngestStream(settings.redis_database_url("ingest")),
        searcher=searcher,
        settings=settings,
        heartbeat=heartbeat,
        check=lambda: model.check(database),
        confirm=lambda: model.identity(database),
    )
    app = make_celery(settings)
    replies = Replies(settings.redis_database_url("results"))
    register(app, owner=owner, sync=sync, searcher=searcher, replies=replies)
    _start_with_worker(owner)
    return run_worker(
        app,
        name=NAME,
        pool="threads",
        concurrency=SEARCH_THREADS,
        queues=(QueueName.SEARCH, QueueName.INDEX),
        log_level=settings.log_level,
        on_hearing=lambda: None,  # the owner's thread shows progress
    )


class QueryModel:
    """The model for queries, loaded beside everything else: it takes seconds, the index does not."""

    def __init__(self, settings: Settings) -> None:
        self._checked = False
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")
        self._model: Future[EmbeddingModel] = executor.submit(_load, settings)
        executor.shutdown(wait=False)

    def embed(self, query: str, *, of: Identity) -> npt.NDArray[np.float32]:
        """Embed one text for an index of this identity. Returns float32 (d,), length 1. Waits for the model.

        Raises:
            ModelMismatch: the index holds another model's vectors: the nearest of them would be any.

        """
        model = self._model.result()
        if model.fingerprint != of.model_fingerprint:
            raise ModelMismatch(stored=of.model_fingerprint, configured=model.fingerprint)
        vector: npt.NDArray[np.float32] = model.encode([query])[0]
        return vector

    def identity(self, database: Database) -> Identity:
        """Wait for the model and make it the database's.

        Raises:
            ModelMismatch: the stored vectors come from another model.

        """
        model = self._model.result()
        identity = EventLog(database).claim_model(fingerprint=model.fingerprint, dim=model.embedding_dim)
        self._checked = True
        return identity

    def check(self, database: Database) -> None:
        """Once loaded, check that it is the database's model; raise whatever its loading raised."""
        if not self._checked and self._model.done():
            self.identity(database)


def _load(settings: Settings) -> EmbeddingModel:
    model = EmbeddingModel(settings.embedding_model, use_gpu=settings.use_gpu, n_threads=1)
    model.encode(["The first pass is the slowest."])
    log.info("model_loaded", model=model.fingerprint)
    return model


def _open(settings: Settings, database: Database, model: QueryModel) -> IndexSync:
    """Take over the index of the database's vectors, without waiting for the model where it is known already.

    Raises:
        ModelMismatch: the vectors were replaced by another model's than the configured one, just now.

    """
    identity = EventLog(database).identity() or model.identity(database)
    while True:
        try:
            return IndexSync.open(
                database=database,
                folder=SnapshotFolder(settings.index_directory),
                identity=identity,
                owner=f"{INDEXER}{socket.gethostname()}:{os.getpid()}",
                use_gpu=settings.use_gpu,
            )
        except ModelMismatch:
            identity = model.identity(database)


def _take_lock(settings: Settings, heartbeat: Heartbeat) -> None:
    """Become the owner; the lock stays with the process until it ends, however it ends."""
    lock = FileLock(settings.index_directory / "owner.lock")
    if not lock.try_acquire():
        log.warning("standby", reason="another process owns this index; waiting for it to end")
        lock.acquire(on_wait=heartbeat.touch)


def _start_with_worker(owner: IndexOwner) -> None:
    """Start the owner before the first task is taken, and stop it after the last one."""

    def start(**_kwargs: Any) -> None:
        owner.start()

    def stop(**_kwargs: Any) -> None:
        owner.stop(timeout_s=_STOP_TIMEOUT_S)

    signals.worker_init.connect(start, weak=False)
    signals.worker_shutdown.connect(stop, weak=False)
