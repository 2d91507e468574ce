"""The embed worker's composition root: settings in, one running Celery worker out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import structlog
from celery import Celery
from celery.worker import state

from memory.broker import Nudger, QueueName, TaskName, make_celery, run_worker
from memory.database import Database
from memory.embedder import Embedder
from memory.embedding import EmbeddingModel
from memory.errors import ModelMismatch, SettingsError
from memory.file_lock import FileLock
from memory.heartbeat import Heartbeat
from memory.ingestion import Ingestion
from memory.logs import configure_logging
from memory.pending import Requeuer
from memory.store.dead_letters import DeadLetters
from memory.store.event_log import EventLog
from memory.store.jobs import Jobs
from memory.store.memories import MemoryStore
from memory.store.pending import PendingRows
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch
from workers.embed import Drain
from workers.maintenance import Maintenance
from workers.own_tick import OwnTick

if TYPE_CHECKING:
    from memory.settings import Settings

log = structlog.get_logger(__name__)

_NAME_IS_FREE_WITHIN_S = 15


class BatchEmbedder(Embedder, Protocol):
    """A model that shows its progress within a long batch."""

    on_pass: Callable[[], None]
    """Called after each pass."""


def load_model(settings: Settings) -> BatchEmbedder:
    """Load the model that the settings name."""
    return EmbeddingModel(
        settings.embedding_model,
        use_gpu=settings.use_gpu,
        n_threads=settings.embed_threads,
        batch_tokens=settings.embed_batch_tokens,
        engine=settings.embedding_engine,
        precision=settings.embedding_precision,
        cache=settings.model_cache,
    )


def run_embed_worker(
    settings: Settings, *, name: str, load: Callable[[Settings], BatchEmbedder] = load_model
) -> int:
    """Embed, store and maintain until SIGTERM; return the exit code.

    The pool is solo: torch does not survive a fork.

    Args:
        settings: of the process.
        name: stable over restarts, different for each embed worker.
        load: makes the model.

    Raises:
        SettingsError: a running worker has this name.

    """
    configure_logging(level=settings.log_level, process=name)
    FileLock(settings.home / "locks" / name).acquire(on_wait=_refuse_later(name))
    heartbeat = Heartbeat(settings.home, name)
    app = compose(settings, name=name, heartbeat=heartbeat, load=load)
    return run_worker(
        app,
        name=name,
        pool="solo",
        concurrency=1,
        queues=(QueueName.EMBED, QueueName.MAINTENANCE),
        log_level=settings.log_level,
        on_hearing=heartbeat.touch,
    )


def compose(
    settings: Settings, *, name: str, heartbeat: Heartbeat, load: Callable[[Settings], BatchEmbedder]
) -> Celery:
    """Build the worker's parts and register its tasks."""
    database = Database(settings.database_url)
    database.upgrade()
    stream = IngestStream(settings.redis_database_url("ingest"), max_waiting=settings.max_waiting)
    for warning in stream.check_server():
        log.warning("redis_not_durable", reason=warning)
    stream.ensure_groups()
    model = load(settings)
    EventLog(database).claim_model(fingerprint=model.fingerprint, dim=model.embedding_dim)
    app = make_celery(settings)
    nudger = Nudger(app, stream)
    drain = Drain(
        consumer=name,
        settings=settings,
        stream=stream,
        ingestion=Ingestion(store=MemoryStore(database), embedder=model),
        dead_letters=DeadLetters(database),
        nudger=nudger,
        on_progress=heartbeat.touch,
        should_stop=_should_stop,
    )
    model.on_pass = drain.between_passes
    maintenance = Maintenance(
        settings=settings,
        database=database,
        jobs=Jobs(database),
        requeuer=Requeuer(PendingRows(database), stream, StreamWatch(settings.redis_database_url("ingest"))),
        nudger=nudger,
        owner=name,
        on_progress=heartbeat.touch,
        should_stop=_should_stop,
    )

    def run_drain() -> int:
        try:
            return drain.run()
        except ModelMismatch as error:
            # All memories were embedded anew, with another model. A start with the old one is refused.
            log.critical("model_replaced", reason=str(error))
            os._exit(os.EX_CONFIG)

    app.task(run_drain, name=TaskName.DRAIN.value)
    OwnTick(run_drain, ran_at=lambda: drain.ran_at, tick_s=settings.tick_s).start()
    app.task(maintenance.tick, name=TaskName.MAINTAIN.value)
    log.info("worker_composed", model=model.fingerprint)
    return app


def _refuse_later(name: str) -> Callable[[], None]:
    """Bear for a moment that the name is taken: its last bearer may be dying."""
    deadline = time.monotonic() + _NAME_IS_FREE_WITHIN_S

    def on_wait() -> None:
        if time.monotonic() > deadline:
            raise SettingsError(f"--name = {name!r}: must be a name that no running worker has")

    return on_wait


def _should_stop() -> bool:
    # Celery puts the exit code there, which is 0 for an ordinary stop.
    return any(stop is not None and stop is not False for stop in (state.should_stop, state.should_terminate))
