"""naive-celery: the message is the only copy of a memory, and it is acknowledged late. It gets lost.

Redis hands a message out with BRPOP; only then does the consumer note in `unacked` that it has it. Killed in
between, nobody has. All else is done well: late acknowledgement, an idempotent insert, and a visibility
timeout so short that every message that can be delivered again is, within the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from celery import Celery, signals
from kombu.exceptions import KombuError

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.examination import Contents, Findings, examine
from benchmarks.chaos.ledger import Draft, Ledger
from benchmarks.chaos.naive.rows import Rows
from benchmarks.chaos.plan import Kind, Plan, Victim
from benchmarks.null_embedder import NullEmbedder
from benchmarks.running_stack import Stack, StackFailed
from memory.errors import Recoverable, ServerAway
from memory.heartbeat import Heartbeat
from memory.settings import Settings

_QUEUE = "naive"
_TASK = "naive.store"
_CONCURRENCY = 4
_VISIBILITY_TIMEOUT_S = 4
_AT_REST_S = 2 * _VISIBILITY_TIMEOUT_S


def make_app(settings: Settings) -> Celery:
    app = Celery("naive", broker=settings.redis_database_url("broker"), set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue=_QUEUE,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
    )
    return app


def work(settings: Settings) -> int:
    """Run the worker until it is told to stop."""
    app = make_app(settings)
    embedder = NullEmbedder()
    local = threading.local()
    heartbeat = Heartbeat(settings.home, "worker")

    def store(draft: dict[str, str]) -> None:
        embedder.encode([draft["content"]])
        if not hasattr(local, "rows"):
            local.rows = Rows(settings.database_url, hasty=True)
        local.rows.insert([draft])

    app.task(store, name=_TASK)
    signals.worker_ready.connect(lambda **_: heartbeat.touch(), weak=False)
    worker = app.Worker(
        pool_cls="threads",
        concurrency=_CONCURRENCY,
        queues=[_QUEUE],
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


class _Enqueuer:
    def __init__(self, settings: Settings) -> None:
        self._app = make_app(settings)

    def single(self, draft: Draft) -> None:
        self.bulk([draft])

    def bulk(self, drafts: Sequence[Draft]) -> None:
        try:
            for draft in drafts:
                self._app.send_task(_TASK, args=[dict(draft)], ignore_result=True)
        except (KombuError, AttributeError) as error:
            raise ServerAway(f"broker: {error}") from error

    def close(self) -> None:
        self._app.close()


class NaiveCelery:
    """The pipeline, as the harness sees it."""

    name = "naive-celery"
    is_meant_to_lose = True
    kinds: frozenset[Kind] = frozenset({"kill", "pause"})
    module: tuple[str, ...] = ("benchmarks.chaos.naive", "up", "worker")
    words = {"worker": "chaos.naive worker"}  # noqa: RUF012 (read only)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @staticmethod
    def victims(*, sqlite: bool) -> tuple[Victim, ...]:  # noqa: ARG004 (it has but one database)
        return ("worker", "redis")

    def environment(self, home: Path) -> dict[str, str]:  # noqa: ARG002 (it has no settings)
        return {}

    def enqueuer(self, stack: Stack) -> _Enqueuer:
        return _Enqueuer(stack.settings())

    def client(self, stack: Stack) -> PipelineClient | None:  # noqa: ARG002 (it can but enqueue)
        return None

    def wait_drained(self, stack: Stack, *, timeout_s: float) -> None:
        """Wait until no message is anywhere for longer than any could still come back."""
        deadline = time.monotonic() + timeout_s
        empty_since = None
        while time.monotonic() < deadline:
            if not self._is_empty(stack):
                empty_since = None
            elif empty_since is None:
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since > _AT_REST_S:
                return
            time.sleep(0.2)
        raise StackFailed(f"not drained within {timeout_s:g} s")

    def examine(self, stack: Stack, ledger: Ledger) -> Findings:
        rows = Rows(stack.settings().database_url).all()
        return examine(ledger, Contents(rows=rows, in_index=None))

    def _is_empty(self, stack: Stack) -> bool:
        try:
            with stack.redis("broker") as broker:
                return not (broker.llen(_QUEUE) or broker.hlen("unacked"))
        except (redis.RedisError, Recoverable):
            return False
