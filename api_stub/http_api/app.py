"""The HTTP API: one client of the pipeline, its endpoints, and who may use them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import FastAPI
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from api_stub.client import MemoryClient
from api_stub.http_api import admin, health, memories, operations, search
from api_stub.http_api.access import Doorkeeper
from api_stub.http_api.health import Metrics
from api_stub.http_api.problems import Problem, add_handlers, problem
from memory.database import Database
from memory.operations import Operations
from memory.store.api_keys import ApiKeys

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from memory.settings import Settings

MAX_BODY_BYTES = 8 * 2**20
_THREADS = 80
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
        try:
            with MemoryClient(settings) as client:
                app.state.client = client
                app.state.operations = results
                app.state.doorkeeper = Doorkeeper(
                    ApiKeys(database),
                    FixedWindowRateLimiter(RedisStorage(settings.redis_database_url("results"))),
                    is_open=is_open,
                )
                yield
        finally:
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
    for part in (memories, search, operations, admin, health):
        app.include_router(part.router)
    add_handlers(app)
    app.add_middleware(_Bounded)
    app.add_middleware(_Measured, metrics=app.state.metrics)
    return app


class _Bounded:
    """Refuses bodies that are too large, whatever their header says, before more of them is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_bytes, is_answered = 0, False

        async def bounded() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            return message if n_bytes <= MAX_BODY_BYTES else {"type": "http.disconnect"}

        async def instead(message: Message) -> None:
            nonlocal is_answered
            if n_bytes <= MAX_BODY_BYTES:
                await send(message)
            elif not is_answered:
                is_answered = True
                detail = f"a body may have {MAX_BODY_BYTES} bytes at most"
                headers = {"Connection": "close"}  # the rest of it is not read
                await problem(413, "too-large", detail, headers=headers)(scope, receive, send)

        await self._app(scope, bounded, instead)


class _Measured:
    """Counts and times each answer by its route, never by its path: that may tell who or what."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route: Any = scope.get("route")
                self._metrics.note(
                    scope["method"],
                    getattr(route, "path", "unknown"),
                    message["status"],
                    time.perf_counter() - started,
                )
            await send(message)

        await self._app(scope, receive, measured)
