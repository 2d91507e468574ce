"""Whether it lives, whether it is ready, and its figures for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from api_stub.bodies import HealthOut
from api_stub.http_api.access import SHOWS_KEY, Admin
from api_stub.http_api.problems import Refused
from api_stub.pipeline_client import PipelineClient
from memory.errors import MemorySystemError
from memory.verdict import State

if TYPE_CHECKING:
    from memory.status import Status

router = APIRouter(tags=["health"])


class Metrics:
    """What this process has answered, and what it is asked for the pipeline's state."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "memory_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "memory_http_request_seconds",
            "Time until the answer began.",
            ["method", "route"],
            registry=self._registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self._memories = Gauge(
            "memory_memories", "Memories in each state.", ["state"], registry=self._registry
        )
        self._waiting = Gauge(
            "memory_waiting", "Memories accepted and not stored yet.", registry=self._registry
        )
        self._behind = Gauge(
            "memory_index_events_behind", "Changes that no search sees yet.", registry=self._registry
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, status: Status) -> bytes:
        """Return everything in Prometheus' format."""
        for state in ("stored", "searchable", "dead", "deleted"):
            self._memories.labels(state).set(getattr(status, state))
        self._waiting.set(status.waiting)
        self._behind.set(status.events_behind)
        return generate_latest(self._registry)


@router.get("/healthz")
async def healthz() -> HealthOut:
    """Say that this process answers."""
    return HealthOut(status="ok")


@router.get("/readyz")
def readyz(request: Request, response: Response) -> HealthOut:
    """Say whether the database, Redis and the indexer do their work."""
    client: PipelineClient = request.app.state.client
    try:
        verdict = client.verdict()
    except MemorySystemError:
        reasons = ["a server cannot be reached"]
    else:
        if verdict.state is not State.STUCK:
            return HealthOut(status="ok")
        reasons = sorted({problem.part for problem in verdict.problems if problem.state is State.STUCK})
    response.status_code = 503
    return HealthOut(status="not-ready", reasons=reasons)


@router.get("/metrics", response_class=Response, dependencies=SHOWS_KEY)
def metrics(request: Request, caller: Admin) -> Response:
    """Figures of all namespaces together, for a key of all of them."""
    if caller.key.namespaces is not None:
        raise Refused(403, "scope-missing", "metrics are for a key of all namespaces")
    client: PipelineClient = request.app.state.client
    known: Metrics = request.app.state.metrics
    return Response(known.text(client.status()), media_type=CONTENT_TYPE_LATEST)
