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
from api_stub.handing_over import item, report, report_accepted
from api_stub.http_api.access import Reader
from api_stub.http_api.problems import Refused
from api_stub.waiting import LOOK_EVERY_S, settled
from memory.errors import Recoverable
from memory.models import Receipt
from memory.operations import Operation, Operations

LONGEST_WAIT_S = 30
Prefer = Annotated[
    str | None,
    Header(description="`wait=N`: wait up to N seconds, at most 30, until it is settled (RFC 7240)."),
]
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
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
    client: MemoryClient = request.app.state.client
    found = await settled(client, receipts, timeout_s=body.wait_s, is_alone=request.is_disconnected)
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
            await anyio.sleep(LOOK_EVERY_S)


async def wait(
    request: Request, operation: Operation, prefer: str | None, response: Response, *, is_new: bool = False
) -> OperationOut:
    """Return how far an operation has come, after the wait that the request prefers.

    One that is new is accepted: nobody need be asked for that, nor the database be there.
    """
    wanted = _WAIT.search(prefer or "")
    timeout_s = 0
    if wanted:
        timeout_s = min(int(wanted[1]), LONGEST_WAIT_S)
        response.headers["Preference-Applied"] = f"wait={timeout_s}"
    if is_new and not timeout_s:
        return report_accepted(operation)
    client: MemoryClient = request.app.state.client
    try:
        found = await settled(
            client, operation.receipts, timeout_s=timeout_s, is_alone=request.is_disconnected
        )
    except Recoverable:
        if is_new:
            return report_accepted(operation)
        raise
    return report(operation, found)
