"""Operations: what became of what was handed over, at once, after a wait, or as it happens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api_stub.bodies import OperationOut, OutcomesOut, Uids
from api_stub.client import MemoryClient
from api_stub.handing_over import item, report
from api_stub.http_api.access import Reader
from api_stub.http_api.problems import Refused
from memory.models import Outcome, Receipt
from memory.operations import Operation, Operations

LONGEST_WAIT_S = 30
Prefer = Annotated[
    str | None,
    Header(description="`wait=N`: wait up to N seconds, at most 30, until it is settled (RFC 7240)."),
]
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])")
_FIRST_LOOK_S = 0.003
_LOOK_EVERY_S = 0.25
_LONGEST_STREAM_S = 600

router = APIRouter(prefix="/v1", tags=["operations"])


def _known(request: Request, caller: Reader, operation_id: str) -> Operation:
    operations: Operations = request.app.state.operations
    operation = operations.get(operation_id)
    if operation is None or not caller.knows(operation.namespace):
        raise Refused(404, "not-found", f"no operation {operation_id!r}")
    return operation


Known = Annotated[Operation, Depends(_known)]


@router.post("/outcomes")
async def outcomes(request: Request, caller: Reader, body: Uids) -> OutcomesOut:
    """Say how far each of these memories has come; one that nobody knows of counts as accepted."""
    namespace = caller.namespace(body.namespace)
    receipts = [Receipt(uid=uid, namespace=namespace) for uid in body.uids]
    found = await _settled(request, receipts, timeout_s=body.wait_s)
    return OutcomesOut(outcomes=[item(one) for one in found])


@router.get("/operations/{operation_id}")
async def get_operation(
    request: Request, operation: Known, response: Response, prefer: Prefer = None
) -> OperationOut:
    """Say how far a hand-over has come."""
    found = await wait(request, operation, prefer, response)
    if found.status == "running":
        response.headers["Retry-After"] = "1"
    return found


@router.get("/operations/{operation_id}/events", response_class=EventSourceResponse)
async def operation_events(request: Request, operation: Known) -> AsyncIterator[ServerSentEvent]:
    """Tell each change of a hand-over, until it is settled: events named `progress`, then one named `end`."""
    client: MemoryClient = request.app.state.client
    told: OperationOut | None = None
    with anyio.move_on_after(_LONGEST_STREAM_S):
        while True:
            now = report(operation, await run_sync(client.outcomes, operation.receipts))
            if now != told:
                is_over = now.status != "running"
                yield ServerSentEvent(event="end" if is_over else "progress", data=now)
                told = now
                if is_over:
                    return
            await anyio.sleep(_LOOK_EVERY_S)


async def wait(
    request: Request, operation: Operation, prefer: str | None, response: Response
) -> OperationOut:
    """Return how far an operation has come, after the wait that the request prefers."""
    wanted = _WAIT.search(prefer or "")
    timeout_s = 0
    if wanted:
        timeout_s = min(int(wanted[1]), LONGEST_WAIT_S)
        response.headers["Preference-Applied"] = f"wait={timeout_s}"
    return report(operation, await _settled(request, operation.receipts, timeout_s=timeout_s))


async def _settled(request: Request, receipts: list[Receipt], *, timeout_s: float) -> list[Outcome]:
    """Do what `MemoryClient.wait` does, without a thread for each request that waits, until nobody does."""
    client: MemoryClient = request.app.state.client
    deadline = anyio.current_time() + timeout_s
    pause_s = _FIRST_LOOK_S
    while True:
        found = await run_sync(client.outcomes, receipts)
        left_s = deadline - anyio.current_time()
        if left_s <= 0 or all(outcome.settled for outcome in found) or await request.is_disconnected():
            return found
        await anyio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _LOOK_EVERY_S)
