"""The Celery factory, and the names that processes meet by. A Celery message is only ever a nudge."""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import structlog
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeout
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from memory.broker_transport import Transport
from memory.errors import SearchUnavailable, ServerAway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.settings import Settings
    from memory.stream import IngestStream, Nudge

log = structlog.get_logger(__name__)

VISIBILITY_TIMEOUT_S = 600
"""Far above the longest task. It must be the same in all three places, the shortest one wins."""


class QueueName(StrEnum):
    """The queues; a name that is none of these fails loudly."""

    EMBED = "embed"
    INDEX = "index"
    SEARCH = "search"
    MAINTENANCE = "maintenance"


class TaskName(StrEnum):
    """The tasks."""

    DRAIN = "embed.drain"
    APPLY = "index.apply"
    SEARCH = "search.query"
    COMPARE = "search.compare"
    MAINTAIN = "maintenance.tick"


QUEUE_OF = {
    TaskName.DRAIN: QueueName.EMBED,
    TaskName.APPLY: QueueName.INDEX,
    TaskName.SEARCH: QueueName.SEARCH,
    TaskName.COMPARE: QueueName.SEARCH,
    TaskName.MAINTAIN: QueueName.MAINTENANCE,
}

_TASK_OF_NUDGE: dict[Nudge, TaskName] = {"embed": TaskName.DRAIN, "index": TaskName.APPLY}
_NUDGE_EXPIRES_S = 30


def make_celery(settings: Settings) -> Celery:
    """Return a Celery app with this project's settings and no tasks. Connects to nothing yet."""
    app = Celery(
        "everkept",
        broker=settings.redis_database_url("broker"),
        backend=settings.redis_database_url("results"),
        set_as_current=False,
    )
    app.conf.update(_CONFIG)
    return app


def run_worker(
    app: Celery,
    *,
    name: str,
    pool: Literal["solo", "threads"],
    concurrency: int,
    queues: Sequence[QueueName],
    log_level: str,
) -> int:
    """Run a Celery worker in this process until SIGTERM or SIGINT; return its exit code.

    Gossip, mingle and heartbeats between workers are off: they are traffic that nobody reads.
    """
    worker = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool_cls=pool,
        concurrency=concurrency,
        queues=[queue.value for queue in queues],
        loglevel=log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


class Nudger:
    """Wakes the embed workers or the indexer. Losing a nudge costs a tick's time, nothing else."""

    def __init__(self, app: Celery, stream: IngestStream) -> None:
        self._app = app
        self._stream = stream

    def nudge(self, kind: Nudge) -> None:
        """Send a nudge unless one is under way already. Never fails: the ticker does the same every tick."""
        try:
            if self._stream.claim_nudge(kind):
                _send(self._app, _TASK_OF_NUDGE[kind], expires_s=_NUDGE_EXPIRES_S, ignore_result=True)
        except ServerAway as error:
            log.warning("nudge_not_sent", kind=kind, reason=str(error))


def ask(app: Celery, task: TaskName, *args: Any, timeout_s: float) -> Any:
    """Publish one task and return its result.

    Raises:
        SearchUnavailable: nobody answered in time.
        ServerAway: the broker cannot be reached.

    """
    handle = _send(app, task, *args, expires_s=timeout_s, ignore_result=False)
    try:
        return handle.get(timeout=timeout_s)
    except CeleryTimeout as error:
        message = f"the indexer gave no answer within {timeout_s:.3g} s: it is down, starting or overloaded"
        raise SearchUnavailable(message) from error
    except OperationalError as error:
        message = f"result backend: {error}"
        raise ServerAway(message) from error
    finally:
        handle.forget()


def _send(app: Celery, task: TaskName, *args: Any, expires_s: float, ignore_result: bool) -> Any:
    # Unless told otherwise, Celery subscribes to the result of everything that is sent.
    options = {"queue": QUEUE_OF[task].value, "expires": expires_s, "ignore_result": ignore_result}
    try:
        return app.send_task(task.value, args=args, **options)
    except OperationalError as error:
        message = f"broker: {error}"
        raise ServerAway(message) from error


_TRANSPORT_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT_S,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 2,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

_CONFIG: dict[str, Any] = {
    "broker_transport": f"{Transport.__module__}:{Transport.__qualname__}",
    # JSON only: a pickle on a queue would run anything.
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "result_accept_content": ["json"],
    "event_serializer": "json",
    "task_queues": [Queue(q.value, routing_key=q.value) for q in QueueName],  # type: ignore[no-untyped-call]
    "task_default_queue": QueueName.EMBED.value,
    "task_create_missing_queues": False,
    "task_ignore_result": True,
    "result_expires": 300,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_failure_or_timeout": True,
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_soft_shutdown_timeout": 5,
    "worker_enable_soft_shutdown_on_idle": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": _TRANSPORT_OPTIONS,
    "visibility_timeout": VISIBILITY_TIMEOUT_S,
    "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_S},
    "redis_socket_timeout": 5,
    "redis_socket_connect_timeout": 2,
    "redis_retry_on_timeout": True,
    "redis_backend_health_check_interval": 30,
    "task_publish_retry_policy": {
        "max_retries": 3,
        "interval_start": 0.1,
        "interval_step": 0.3,
        "interval_max": 1,
    },
    "enable_utc": True,
    "timezone": "UTC",
    "beat_max_loop_interval": 1,
}
