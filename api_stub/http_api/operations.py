"""Operations: what became of what was handed over, at once, after a wait, or as it happens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api_stub.client import MemoryClient
from api_stub.http_api.access import Caller, Reader
from api_stub.http_api.bodies import CountsOut, ItemOut, OperationOut, RejectedOut
from api_stub.http_api.problems import Refused
from memory.models import MemoryState
from memory.operations import Operation, Operations

if TYPE_CHECKING:
    from memory.models import Outcome

LONGEST_WAIT_S = 30
Prefer = Annotated[
    str | None,
    Header(description="`wait=N`: wait up to N seconds, at most 30, until it is settled (RFC 7240)."),
]
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])")
_LOOK_EVERY_S = 0.25
_LONGEST_STREAM_S = 600

router = APIRouter(prefix="/v1/operations", tags=["operations"])


@router.get("/{operation_id}")
def get_operation(
    request: Request, caller: Reader, operation_id: str, response: Response, prefer: Prefer = None
) -> OperationOut:
    """Say how far a hand-over has come."""
    client: MemoryClient = request.app.state.client
    operation = _find(request, caller, operation_id)
    found = wait(client, operation, prefer, response)
    if found.status == "running":
        response.headers["Retry-After"] = "1"
    return found


@router.get("/{operation_id}/events", response_class=EventSourceResponse)
async def operation_events(
    request: Request, caller: Reader, operation_id: str
) -> AsyncIterator[ServerSentEvent]:
    """Tell each change of a hand-over, until it is settled: events named `progress`, then one named `end`."""
    client: MemoryClient = request.app.state.client
    operation = await run_sync(_find, request, caller, operation_id)
    told: OperationOut | None = None
    with anyio.move_on_after(_LONGEST_STREAM_S):
        while True:
            now = await run_sync(seen, client, operation)
            if now != told:
                is_over = now.status != "running"
                yield ServerSentEvent(event="end" if is_over else "progress", data=now)
                told = now
                if is_over:
                    return
            await anyio.sleep(_LOOK_EVERY_S)


def wait(client: MemoryClient, operation: Operation, prefer: str | None, response: Response) -> OperationOut:
    """Return how far an operation has come, after the wait that the request prefers."""
    wanted = _WAIT.search(prefer or "")
    if wanted:
        timeout_s = min(int(wanted[1]), LONGEST_WAIT_S)
        outcomes = client.wait(operation.receipts, timeout_s=timeout_s)
        response.headers["Preference-Applied"] = f"wait={timeout_s}"
        return _as_out(operation, outcomes)
    return seen(client, operation)


def seen(client: MemoryClient, operation: Operation) -> OperationOut:
    """Return how far an operation has come by now."""
    return _as_out(operation, client.outcomes(operation.receipts))


def _find(request: Request, caller: Caller, operation_id: str) -> Operation:
    operations: Operations = request.app.state.operations
    operation = operations.get(operation_id)
    own = caller.key.namespaces
    if operation is None or (own is not None and operation.namespace not in own):
        raise Refused(404, "not-found", f"no operation {operation_id!r}")
    return operation


def _as_out(operation: Operation, outcomes: list[Outcome]) -> OperationOut:
    counts = Counter(outcome.state.value for outcome in outcomes)
    n_bad = counts[MemoryState.DEAD] + len(operation.rejected)
    if not all(outcome.settled for outcome in outcomes):
        status = "running"
    elif not n_bad:
        status = "succeeded"
    else:
        status = "partly" if n_bad < len(outcomes) + len(operation.rejected) else "failed"
    return OperationOut(
        id=operation.id,
        namespace=operation.namespace,
        status=status,
        counts=CountsOut(**counts, rejected=len(operation.rejected)),
        seq=max((outcome.seq for outcome in outcomes if outcome.seq is not None), default=None),
        memories=[
            ItemOut(
                uid=outcome.receipt.uid,
                state=outcome.state,
                id=outcome.id,
                seq=outcome.seq,
                reason=outcome.reason,
            )
            for outcome in outcomes
        ],
        rejected=[RejectedOut(position=place, reason=reason) for place, reason in operation.rejected],
        created_at=operation.created_at,
    )
