"""The embed worker's composition root: settings in, one running Celery worker out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery, signals
from celery.worker import state

from memory.broker import Nudger, QueueName, TaskName, make_celery
from memory.database import Database
from memory.embedding import EmbeddingModel
from memory.heartbeat import Heartbeat
from memory.ingestion import Ingestion
from memory.logs import configure_logging
from memory.store.dead_letters import DeadLetters
from memory.store.event_log import EventLog
from memory.store.jobs import Jobs
from memory.store.memories import MemoryStore
from memory.stream import IngestStream
from workers.embed import Drain
from workers.maintenance import Maintenance

if TYPE_CHECKING:
    from memory.settings import Settings

log = structlog.get_logger(__name__)

_HEARTBEAT_EVERY_S = 2.0


def run_embed_worker(settings: Settings, *, name: str) -> None:
    """Embed, store and maintain until SIGTERM. The pool is solo: torch does not survive a fork."""
    configure_logging(level=settings.log_level, process=name)
    heartbeat = Heartbeat(settings.home, name)
    app = compose(settings, name=name, heartbeat=heartbeat)
    keep_alive_sign(heartbeat)
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=solo",
            "--concurrency=1",
            f"--queues={QueueName.EMBED.value},{QueueName.MAINTENANCE.value}",
            f"--hostname={name}@%h",
            f"--loglevel={settings.log_level}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def compose(settings: Settings, *, name: str, heartbeat: Heartbeat) -> Celery:
    """Build the worker's parts and register its tasks."""
    database = Database(settings.database_url)
    database.upgrade()
    stream = IngestStream(settings.redis_database_url("ingest"), max_waiting=settings.max_waiting)
    for warning in stream.check_server():
        log.warning("redis_not_durable", reason=warning)
    stream.ensure_groups()
    model = EmbeddingModel(
        settings.embedding_model,
        use_gpu=settings.use_gpu,
        n_threads=settings.embed_threads,
        batch_tokens=settings.embed_batch_tokens,
    )
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
        should_stop=lambda: bool(state.should_stop or state.should_terminate),
    )
    maintenance = Maintenance(
        settings=settings, database=database, jobs=Jobs(database), nudger=nudger, owner=name
    )
    app.task(drain.run, name=TaskName.DRAIN.value)
    app.task(maintenance.tick, name=TaskName.MAINTAIN.value)
    log.info("worker_composed", model=model.fingerprint)
    return app


def keep_alive_sign(heartbeat: Heartbeat) -> None:
    """Touch the heartbeat whenever the worker's loop turns, with work or without."""

    def start(sender: Any, **_kwargs: Any) -> None:
        heartbeat.touch()
        sender.timer.call_repeatedly(_HEARTBEAT_EVERY_S, heartbeat.touch)

    signals.worker_ready.connect(start, weak=False)
