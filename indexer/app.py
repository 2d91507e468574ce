"""The indexer's composition root: take the lock, load the index, then answer."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals

from indexer.allocator import exempt_from_collection, return_large_blocks
from indexer.audits import Audits
from indexer.owner import IndexOwner
from indexer.query_vectors import QueryVectors
from indexer.tasks import register
from memory.audit import Auditor
from memory.broker import QueueName, make_celery, run_worker
from memory.database import Database
from memory.embedder import Embedder
from memory.embedding import EmbeddingModel
from memory.errors import ModelMismatch
from memory.file_lock import FileLock
from memory.heartbeat import Heartbeat
from memory.index_sync import INDEXER, IndexSync
from memory.logs import configure_logging
from memory.repair import Repairer
from memory.replies import Replies
from memory.reranker import Reranker
from memory.search import Searcher
from memory.snapshot import SnapshotFolder
from memory.store.associations import Associations
from memory.store.event_log import EventLog
from memory.store.jobs import Jobs
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from memory.models import Identity
    from memory.settings import Settings

log = structlog.get_logger(__name__)

NAME = "indexer"
SEARCH_THREADS = 4
_STOP_TIMEOUT_S = 8
_WARM_UP_WORDS = (1, 3, 6, 10, 16, 32, 100)


def load_model(settings: Settings) -> Embedder:
    """Load the model that the settings name, for one query at a time."""
    return EmbeddingModel(
        settings.embedding_model,
        use_gpu=settings.use_gpu,
        n_threads=1,
        engine=settings.embedding_engine,
        precision=settings.embedding_precision,
        cache=settings.model_cache,
    )


def run_indexer(settings: Settings, *, load: Callable[[Settings], Embedder] = load_model) -> int:
    """Own the index and answer searches until SIGTERM; return the exit code.

    Waits first while another process owns the index. `load` makes the model for queries.
    """
    configure_logging(level=settings.log_level, process=NAME)
    heartbeat = Heartbeat(settings.home, NAME)
    database = Database(settings.database_url)
    database.upgrade()
    _take_lock(settings, heartbeat)
    return_large_blocks()
    model = QueryModel(lambda: load(settings))
    sync = _open(settings, database, model)
    searcher = Searcher(
        replica=lambda: sync.replica,
        store=MemoryStore(database),
        associations=Associations(database),
        embed_query=lambda query: model.embed(query, of=sync.identity),
        reranker=Reranker(settings.reranker, use_gpu=settings.use_gpu),
    )
    audits = _audits(settings, database, sync)
    owner = IndexOwner(
        sync=sync,
        stream=IngestStream(settings.redis_database_url("ingest")),
        searcher=searcher,
        settings=settings,
        heartbeat=heartbeat,
        check=lambda: model.check(database),
        confirm=lambda: model.identity(database),
        audit=audits.run_when_due,
    )
    app = make_celery(settings)
    replies = Replies(settings.redis_database_url("results"))
    register(app, owner=owner, sync=sync, audits=audits, searcher=searcher, replies=replies)
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


def _audits(settings: Settings, database: Database, sync: IndexSync) -> Audits:
    folder = SnapshotFolder(settings.index_directory)
    watch = StreamWatch(settings.redis_database_url("ingest"))
    auditor = Auditor(index=sync, database=database, folder=folder, watch=watch, settings=settings)
    repairer = Repairer(sync=sync, database=database, folder=folder, auditor=auditor)
    return Audits(
        auditor=auditor,
        repairer=repairer,
        jobs=Jobs(database),
        every_s=settings.audit_every_s,
        owner=NAME,
    )


class QueryModel:
    """The model for queries, loaded beside everything else: it takes seconds, the index does not.

    What was asked lately is answered from memory.
    """

    def __init__(self, load: Callable[[], Embedder]) -> None:
        self._checked = False
        self._known = QueryVectors()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")
        self._model: Future[Embedder] = executor.submit(_load, load)
        executor.shutdown(wait=False)

    def embed(self, query: str, *, of: Identity) -> npt.NDArray[np.float32]:
        """Embed one text for an index of this identity. Returns float32 (d,), length 1. Waits for the model.

        Raises:
            ModelMismatch: the index holds another model's vectors: the nearest of them would be any.

        """
        model = self._model.result()
        if model.fingerprint != of.model_fingerprint:
            raise ModelMismatch(stored=of.model_fingerprint, configured=model.fingerprint)
        vector = self._known.get(model.fingerprint, query)
        if vector is None:
            vector = model.encode([query])[0].copy()
            self._known.put(model.fingerprint, query, vector)
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


def _load(load: Callable[[], Embedder]) -> Embedder:
    model = load()
    for n_words in _WARM_UP_WORDS:  # the first pass of a length is the slowest
        model.encode(["word " * n_words])
    exempt_from_collection()
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
                language=settings.language,
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
