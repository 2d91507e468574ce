"""Search over HTTP: every option of the client's."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from api_stub.bodies import SearchBody, SearchOut
from api_stub.http_api.access import Reader
from api_stub.pipeline_client import PipelineClient
from api_stub.waiting import look_until
from memory.errors import NotYetSearchable
from memory.settings import Settings

_LEAST_S = 0.5
"""So long a search may take in any case, however long its write was waited for."""

router = APIRouter(prefix="/v1/search", tags=["search"])


@router.post("", response_model_exclude_unset=True)
async def search(request: Request, caller: Reader, body: SearchBody) -> SearchOut:
    """Search by meaning, words and context, best first; with `min_seq`, what was written up to there."""
    settings: Settings = request.app.state.settings
    deadline = anyio.current_time() + (body.wait_s or settings.search_timeout_s)
    namespace = caller.namespace(body.namespace)
    if body.min_seq is not None:
        await _wait_until_applied(request, body.min_seq, timeout_s=deadline - anyio.current_time())
    left_s = max(_LEAST_S, deadline - anyio.current_time())
    limiter: anyio.CapacityLimiter = request.app.state.searching
    return await run_sync(_found, request.app.state.client, body, namespace, left_s, limiter=limiter)


async def _wait_until_applied(request: Request, seq: int, *, timeout_s: float) -> None:
    client: PipelineClient = request.app.state.client
    applied = await look_until(
        client.applied_seq,
        lambda applied: applied >= seq,
        timeout_s=timeout_s,
        is_alone=request.is_disconnected,
    )
    if applied < seq:
        raise NotYetSearchable(f"write {seq} is not searchable yet")


def _found(client: PipelineClient, body: SearchBody, namespace: str, timeout_s: float) -> SearchOut:
    given = body.model_dump(exclude_none=True, exclude={"query", "namespace", "min_seq", "wait_s"})
    hits = client.search(body.query, min_seq=body.min_seq, timeout_s=timeout_s, namespace=namespace, **given)
    own = [hit for hit in hits if hit.relation is None]
    found: dict[str, Any] = {"results": [hit.as_json() for hit in hits]}
    if len(own) == body.limit:
        found["next"] = own[-1].cursor
    return SearchOut.model_validate(found)
