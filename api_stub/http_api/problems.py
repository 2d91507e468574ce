"""Errors on the wire: problem details (RFC 9457), each with a code that stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from memory.errors import (
    AccessDenied,
    CleanupBraked,
    InvalidMemory,
    MemorySystemError,
    NoReranker,
    NotFound,
    NothingAccepted,
    NotYetSearchable,
    QueueFull,
    Recoverable,
    SearchUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = "1"
_MOST_TOLD = 100
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Problem(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "code": "invalid",
                    "detail": "importance = 2: must be a number in 0..1",
                    "errors": [{"field": "importance", "allowed": "a number in 0..1"}],
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = None


class Refused(Exception):
    """An answer that is a problem."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers: Mapping[str, str] = more.pop("headers", {})
        self.more = more


_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_OF_ERROR: tuple[tuple[type[MemorySystemError], int, str], ...] = (
    (AccessDenied, 403, "scope-missing"),
    (NotFound, 404, "not-found"),
    (NotYetSearchable, 409, "not-yet-searchable"),
    (CleanupBraked, 409, "cleanup-braked"),
    (NoReranker, 422, "no-reranker"),
    (SearchUnavailable, 503, "search-unavailable"),
    (QueueFull, 503, "queue-full"),
    (Recoverable, 503, "server-away"),
)


def add_handlers(app: FastAPI) -> None:
    """Let every error of `app` leave it as a problem."""

    @app.exception_handler(Refused)
    def refused(_request: Request, error: Refused) -> JSONResponse:
        return problem(error.status, error.code, error.detail, headers=error.headers, **error.more)

    @app.exception_handler(MemorySystemError)
    def ours(_request: Request, error: MemorySystemError) -> JSONResponse:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    def not_valid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[:_MOST_TOLD]
        if any(one["type"] == "json_invalid" for one in found):
            return problem(400, "malformed", "the body is not valid JSON")
        errors = [
            {"field": ".".join(str(part) for part in one["loc"]), "allowed": one["msg"]} for one in found
        ]
        said = "; ".join(f"{one['field']}: {one['allowed']}" for one in errors[:5])
        return problem(422, "invalid", said, errors=errors)

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> JSONResponse:
        codes = {400: "malformed", 404: "not-found", 405: "method-not-allowed"}
        headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
        code = codes.get(error.status_code, "error")
        return problem(error.status_code, code, str(error.detail), headers=headers)

    @app.exception_handler(Exception)
    def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return _unexpected()


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Return the response of a problem."""
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    return JSONResponse(body, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _allowed(request: Request) -> str:
    """Return every method of this path: a router knows only those of its first endpoint."""
    routes = request.app.router.routes
    answered = (
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
    return ", ".join(answered)


def problem_of(error: MemorySystemError) -> JSONResponse:
    """Return the response of one of our errors."""
    if isinstance(error, InvalidMemory):
        return problem(422, "invalid", str(error), errors=[{"field": error.field, "allowed": error.allowed}])
    if isinstance(error, NothingAccepted):
        errors = [{"field": f"memories[{n}]", "allowed": reason} for n, reason in error.reasons.items()]
        return problem(422, "invalid", str(error), errors=errors)
    for kind, status, code in _OF_ERROR:
        if isinstance(error, kind):
            headers = {"Retry-After": _RETRY_AFTER_S} if status in {409, 503} else {}
            return problem(status, code, str(error), headers=headers)
    return _unexpected()


def _unexpected() -> JSONResponse:
    return problem(500, "internal", "an unexpected error; the server's log says more")
