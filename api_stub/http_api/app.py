"""The HTTP API: one client of the pipeline, its endpoints, and who may use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from fastapi import FastAPI
from starlette.routing import Route

from api_stub.http_api import admin, health, memories, operations, search
from api_stub.http_api.access import SHOWS_KEY, Doorkeeper
from api_stub.http_api.guards import MAX_BODY_BYTES, Admitted, Bounded, Measured, SameOrigin
from api_stub.http_api.health import Metrics
from api_stub.http_api.problems import Problem, add_handlers
from api_stub.http_api.request_count import RequestCount
from api_stub.pipeline_client import PipelineClient
from memory.database import Database
from memory.operations import Operations
from memory.store.api_keys import ApiKeys

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from memory.settings import Settings

HAS_MCP = find_spec("mcp") is not None
_THREADS = 80
_SEARCHES = 64
"""So many searches wait for the indexer at once, in threads of their own: nothing else waits for them."""
_PROBLEMS = {400, 401, 403, 404, 409, 413, 422, 429, 503}
_DESCRIPTION = """A persistent memory for AI assistants. What is handed over is *accepted* (202), then
*stored*, then *searchable*; an operation says how far it is. Errors are problem details (RFC 9457) with a
`code`."""


def make_app(settings: Settings, *, is_open: bool = False) -> FastAPI:
    """Return the API of a running pipeline.

    Args:
        settings: with both URLs.
        is_open: answer without a key too. For development on one's own machine alone.

    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        database = Database(settings.database_url)
        results = Operations(settings.redis_database_url("results"))
        requests = RequestCount(settings.redis_database_url("results"))
        try:
            with PipelineClient(settings) as client:
                app.state.client = client
                app.state.operations = results
                app.state.searching = anyio.CapacityLimiter(_SEARCHES)
                doorkeeper = Doorkeeper(ApiKeys(database), requests, is_open=is_open)
                app.state.doorkeeper = doorkeeper
                async with anyio.create_task_group() as watching, _mcp(app):
                    watching.start_soon(doorkeeper.keep_watch)
                    yield
                    watching.cancel_scope.cancel()
        finally:
            await requests.aclose()
            results.close()
            database.close()

    app = FastAPI(
        title="everkept",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        responses={
            status: {"model": Problem, "content": {"application/problem+json": {}}} for status in _PROBLEMS
        },
    )
    app.state.metrics = Metrics()
    app.state.settings = settings
    for part in (memories, operations, search, admin):
        app.include_router(part.router, dependencies=SHOWS_KEY)
    app.include_router(health.router)
    if HAS_MCP:
        app.router.routes.append(Route("/mcp", endpoint=_Mcp(app)))
    add_handlers(app)
    app.add_middleware(Admitted)
    app.add_middleware(Bounded)
    app.add_middleware(SameOrigin, is_open=is_open)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


@asynccontextmanager
async def _mcp(app: FastAPI) -> AsyncIterator[None]:
    """Serve MCP too, where the extra is installed."""
    if not HAS_MCP:
        yield
        return
    from api_stub.mcp_server.over_http import McpEndpoint  # noqa: PLC0415 (an extra)

    endpoint = McpEndpoint(
        client=app.state.client,
        operations=app.state.operations,
        max_body_bytes=MAX_BODY_BYTES,
    )
    async with endpoint.running():
        app.state.mcp = endpoint
        yield


class _Mcp:
    """Where MCP is answered: a route needs it before the application runs."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.state.mcp(scope, receive, send)
