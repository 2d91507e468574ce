"""Operations: what became of what was handed over, at once, after a wait, or as it happens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api_stub.access import Caller
from api_stub.bodies import OperationOut, OutcomesOut, Uids
from api_stub.client import MemoryClient
from api_stub.handing_over import item, report
from api_stub.http_api.access import Reader
from api_stub.http_api.problems import Refused
from memory.models import Receipt
from memory.operations import Operation, Operations

LONGEST_WAIT_S = 30
Prefer = Annotated[
    str | None,
    Header(description="`wait=N`: wait up to N seconds, at most 30, until it is settled (RFC 7240)."),
]
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])")
_LOOK_EVERY_S = 0.25
_LONGEST_STREAM_S = 600

router = APIRouter(prefix="/v1", tags=["operations"])


@router.post("/outcomes")
def outcomes(request: Request, caller: Reader, body: Uids) -> OutcomesOut:
    """Say how far each of these memories has come; one that nobody knows of counts as accepted."""
    client: MemoryClient = request.app.state.client
    namespace = caller.namespace(body.namespace)
    receipts = [Receipt(uid=uid, namespace=namespace) for uid in body.uids]
    return OutcomesOut(outcomes=[item(one) for one in client.wait(receipts, timeout_s=body.wait_s)])


@router.get("/operations/{operation_id}")
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


@router.get("/operations/{operation_id}/events", response_class=EventSourceResponse)
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
        return report(operation, outcomes)
    return seen(client, operation)


def seen(client: MemoryClient, operation: Operation) -> OperationOut:
    """Return how far an operation has come by now."""
    return report(operation, client.outcomes(operation.receipts))


def _find(request: Request, caller: Caller, operation_id: str) -> Operation:
    operations: Operations = request.app.state.operations
    operation = operations.get(operation_id)
    if operation is None or not caller.knows(operation.namespace):
        raise Refused(404, "not-found", f"no operation {operation_id!r}")
    return operation
