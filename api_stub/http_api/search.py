"""Search over HTTP: every option of the client's."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from api_stub.bodies import SearchBody, SearchOut
from api_stub.client import MemoryClient
from api_stub.http_api.access import Reader

router = APIRouter(prefix="/v1/search", tags=["search"])


@router.post("", response_model_exclude_unset=True)
def search(request: Request, caller: Reader, body: SearchBody) -> SearchOut:
    """Search by meaning, words and context, best first; with `min_seq`, what was written up to there."""
    client: MemoryClient = request.app.state.client
    given = body.model_dump(exclude_none=True, exclude={"query", "namespace", "min_seq", "wait_s"})
    hits = client.search(
        body.query,
        min_seq=body.min_seq,
        timeout_s=body.wait_s,
        namespace=caller.namespace(body.namespace),
        **given,
    )
    own = [hit for hit in hits if hit.relation is None]
    found: dict[str, Any] = {"results": [hit.as_json() for hit in hits]}
    if len(own) == body.limit:
        found["next"] = own[-1].cursor
    return SearchOut.model_validate(found)
