"""The Celery factory, and the names that processes meet by. A Celery message is only ever a nudge."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import structlog
from celery import Celery, signals
from kombu.entity import Queue
from kombu.exceptions import KombuError

from memory.broker_transport import Transport
from memory.errors import Recoverable, SearchUnavailable, ServerAway
from memory.hearing import HearingWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memory.replies import Replies
    from memory.settings import Settings
    from memory.stream import IngestStream, Nudge

log = structlog.get_logger(__name__)


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
    REPAIR = "search.repair"
    ERASED = "index.erased"
    MAINTAIN = "maintenance.tick"


QUEUE_OF = {
    TaskName.DRAIN: QueueName.EMBED,
    TaskName.APPLY: QueueName.INDEX,
    TaskName.SEARCH: QueueName.SEARCH,
    TaskName.COMPARE: QueueName.SEARCH,
    TaskName.REPAIR: QueueName.SEARCH,
    TaskName.ERASED: QueueName.SEARCH,
    TaskName.MAINTAIN: QueueName.MAINTENANCE,
}

_TASK_OF_NUDGE: dict[Nudge, TaskName] = {"embed": TaskName.DRAIN, "index": TaskName.APPLY}
_NUDGE_EXPIRES_S = 30
_PUBLISHED_WITHIN_S = 2
"""Each try of four."""
_AFTER_S = 0.002
"""Publishing takes Python some milliseconds: whoever has pushed gets on first."""


def make_celery(settings: Settings, *, publishes_only: bool = False) -> Celery:
    """Return a Celery app with this project's settings and no tasks. Connects to nothing yet.

    Args:
        settings: with the URL of Redis.
        publishes_only: it runs no worker: somebody waits for each message to be sent, ten seconds at most
            where Redis hangs.

    """
    app = Celery(
        "everkept",
        broker=settings.redis_database_url("broker"),
        set_as_current=False,
    )
    app.conf.update(_CONFIG)
    if publishes_only:
        app.conf.broker_transport_options = {**_TRANSPORT_OPTIONS, "socket_timeout": _PUBLISHED_WITHIN_S}
    return app


def run_worker(
    app: Celery,
    *,
    name: str,
    pool: Literal["solo", "threads"],
    concurrency: int,
    queues: Sequence[QueueName],
    log_level: str,
    on_hearing: Callable[[], None],
) -> int:
    """Run a Celery worker in this process until SIGTERM or SIGINT; return its exit code.

    Gossip, mingle and heartbeats between workers are off: they are traffic that nobody reads.
    `on_hearing` is called every few seconds while the worker takes what is sent to it; one that has gone
    deaf ends the process.
    """
    names = [queue.value for queue in queues]
    worker = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool_cls=pool,
        concurrency=concurrency,
        queues=names,
        loglevel=log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    watch = HearingWatch(app, queues=names, concurrency=concurrency, on_hearing=on_hearing)

    def begin(**_kwargs: Any) -> None:
        on_hearing()
        if not watch.is_alive():  # the signal comes again after each outage
            watch.start()

    signals.worker_ready.connect(begin, weak=False)
    worker.start()
    return int(worker.exitcode or 0)


class Nudger:
    """Wakes the embed workers or the indexer, from a thread of its own: nobody waits for a nudge.

    Losing one costs a tick's time, nothing else.
    """

    def __init__(self, app: Celery, stream: IngestStream) -> None:
        self._app = app
        self._stream = stream
        self._about_to_be_sent: set[Nudge] = set()
        self._turn = threading.Lock()
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nudger")

    def nudge(self, kind: Nudge) -> None:
        """Send a nudge soon, unless one is under way already. Never fails: the ticker does the same."""
        with self._turn:
            if kind in self._about_to_be_sent:
                return
            self._about_to_be_sent.add(kind)
        try:
            self._sender.submit(self._send, kind)
        except RuntimeError:  # the process is about to end, or this was closed
            log.debug("nudge_not_sent", kind=kind, reason="too late")

    def close(self) -> None:
        """Wait until what was to be sent is sent, and send nothing more."""
        self._sender.shutdown()

    def _send(self, kind: Nudge) -> None:
        time.sleep(_AFTER_S)
        with self._turn:
            self._about_to_be_sent.discard(kind)
        try:
            if self._stream.claim_nudge(kind):
                _send(self._app, _TASK_OF_NUDGE[kind], expires_s=_NUDGE_EXPIRES_S)
        except Recoverable as error:
            log.warning("nudge_not_sent", kind=kind, reason=str(error))


def ask(app: Celery, replies: Replies, task: TaskName, *args: Any, timeout_s: float) -> dict[str, Any]:
    """Publish a task that answers; return its answer. The task's last argument is where to put it.

    Raises:
        SearchUnavailable: nobody answered in time.
        ServerAway: Redis cannot be reached.

    """
    address = replies.new_address()
    _send(app, task, *args, address, expires_s=timeout_s)
    answer = replies.take(address, timeout_s=timeout_s)
    if answer is None:
        message = f"the indexer gave no answer within {timeout_s:.3g} s: it is down, starting or overloaded"
        raise SearchUnavailable(message)
    return answer


def _send(app: Celery, task: TaskName, *args: Any, expires_s: float) -> None:
    try:
        app.send_task(
            task.value, args=args, queue=QUEUE_OF[task].value, expires=expires_s, ignore_result=True
        )
    except (KombuError, AttributeError) as error:  # kombu forgets its channel when the broker dies under it
        message = f"broker: {error}"
        raise ServerAway(message) from error


_TRANSPORT_OPTIONS = {
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
    "event_serializer": "json",
    "task_queues": [Queue(q.value, routing_key=q.value) for q in QueueName],  # type: ignore[no-untyped-call]
    "task_default_queue": QueueName.EMBED.value,
    "task_create_missing_queues": False,
    "task_ignore_result": True,
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
