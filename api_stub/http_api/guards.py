"""What every request passes: where it comes from, how large it may be, how long it took."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from api_stub.http_api.access import KEY, Doorkeeper
from api_stub.http_api.problems import METHODS, Refused, problem, problem_of
from memory.errors import MemorySystemError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from api_stub.http_api.health import Metrics

MAX_BODY_BYTES = 8 * 2**20
FOR_ALL = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, as far as it says so by itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class SameOrigin:
    """Refuses what a web page of another place has a browser send; CORS is off.

    Without keys (`is_open`) it must also have been sent to a name of this machine: a page may let its own
    name lead here (DNS rebinding), and then it is of the same origin.
    """

    def __init__(self, app: ASGIApp, *, is_open: bool) -> None:
        self._app = app
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass, or refuse it."""
        if scope["type"] == "http" and (refusal := self._refusal(Headers(scope=scope))):
            await problem(403, "cross-origin", refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and _place(origin) != host:
            return "a web page of another origin may not ask this API"
        if self._is_open and not is_loopback(_name(host)):
            return "in development mode the API answers to the names of this machine alone"
        return None


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Bounded:
    """Refuses bodies that are too large, whatever their header says, before more of them is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass."""
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


class Admitted:
    """Lets nobody in without a key, but to the few paths that are for all; nor is a body read before."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass, with its key in `scope[KEY]`, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in FOR_ALL:
            doorkeeper: Doorkeeper = scope["app"].state.doorkeeper
            try:
                scope[KEY] = await doorkeeper.admit(doorkeeper.text_of(Headers(scope=scope)))
            except Refused as refused:
                answer = problem(refused.status, refused.code, refused.detail, headers=refused.headers)
                await answer(scope, receive, send)
                return
            except MemorySystemError as error:
                await problem_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Measured:
    """Counts and times each answer by its route, never by its path: that may tell who or what."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route: Any = scope.get("route")
                method = scope["method"]
                self._metrics.note(
                    method if method in METHODS else "other",  # anybody may send any, and each is kept
                    getattr(route, "path", "unknown"),
                    message["status"],
                    time.perf_counter() - started,
                )
            await send(message)

        await self._app(scope, receive, measured)
