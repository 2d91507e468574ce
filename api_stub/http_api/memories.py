"""Memories over HTTP: hand over, get, list, change, delete, and what hangs together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query, Request, Response

from api_stub.access import Caller
from api_stub.bodies import (
    AssociationOut,
    ContextOut,
    CreateMemories,
    DeletedOut,
    Link,
    MemoriesOut,
    MemoryOut,
    OperationOut,
    RelatedMemoriesOut,
    RemovedOut,
    UpdateMemory,
)
from api_stub.client import MemoryClient
from api_stub.fields import LARGEST_WHOLE, Name, PageCursor, TypeName
from api_stub.handing_over import hand_over, keep, operation_on
from api_stub.http_api.access import Reader, Writer
from api_stub.http_api.operations import Prefer, wait
from api_stub.http_api.problems import Refused
from memory.messages import decode_object
from memory.operations import Operation, Operations, new_operation_id

if TYPE_CHECKING:
    from memory.models import Memory

IdPath = Annotated[int, Path(ge=1, le=LARGEST_WHOLE, examples=[1])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="The same request under the same key again is carried out once, for a week.",
    ),
]

router = APIRouter(prefix="/v1/memories", tags=["memories"])


@router.post("", status_code=202)
async def create_memories(
    request: Request,
    response: Response,
    caller: Writer,
    body: CreateMemories,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> OperationOut:
    """Hand over memories. 202 says that they are accepted: none of them is lost from here on."""
    operation, is_new = await run_sync(_handed_over, request, caller, body, idempotency_key)
    found = await wait(request, operation, prefer, response, is_new=is_new)
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    if found.status == "running":
        response.headers["Retry-After"] = "1"
    return found


@router.get("", response_model_exclude_unset=True)
def list_memories(
    request: Request,
    caller: Reader,
    namespace: Annotated[Name | None, Query()] = None,
    memory_type: Annotated[list[TypeName] | None, Query()] = None,
    where: Annotated[
        str | None, Query(description='Conditions as JSON: {"metadata.author": "Inês"}.')
    ] = None,
    cursor: Annotated[PageCursor | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MemoriesOut:
    """List stored memories, newest first, searchable yet or not."""
    client: MemoryClient = request.app.state.client
    found = client.list_memories(
        namespace=caller.namespace(namespace),
        memory_types=memory_type,
        where=None if where is None else decode_object(where, field="where"),
        after=None if cursor is None else int(cursor),
        limit=limit,
    )
    page = MemoriesOut(memories=[_out(memory) for memory in found])
    if len(found) == limit:
        page.next = str(found[-1].id)
    return page


@router.get("/{memory_id}")
def get_memory(request: Request, caller: Reader, memory_id: IdPath) -> MemoryOut:
    """Return a stored memory."""
    client: MemoryClient = request.app.state.client
    return _out(caller.sees(client, memory_id))


@router.get("/{memory_id}/context")
def get_context(
    request: Request,
    caller: Reader,
    memory_id: IdPath,
    before: Annotated[int, Query(ge=0, le=100)] = 2,
    after: Annotated[int, Query(ge=0, le=100)] = 2,
) -> ContextOut:
    """Return a memory with what was said around it in its conversation."""
    client: MemoryClient = request.app.state.client
    caller.sees(client, memory_id)
    found = client.context(memory_id, before=before, after=after)
    return ContextOut(memories=[_out(memory) for memory in found])


@router.patch("/{memory_id}", status_code=202)
async def update_memory(
    request: Request,
    response: Response,
    caller: Writer,
    memory_id: IdPath,
    body: UpdateMemory,
    prefer: Prefer = None,
) -> OperationOut:
    """Change what is given of a memory. It is stored at once; a new content is embedded behind it."""
    operation = await run_sync(_changed, request, caller, memory_id, body)
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    return await wait(request, operation, prefer, response)


@router.delete("/{memory_id}")
def delete_memory(request: Request, caller: Writer, memory_id: IdPath) -> DeletedOut:
    """Delete a memory: no search finds it from now on, and it never comes back under its uid."""
    client: MemoryClient = request.app.state.client
    caller.sees(client, memory_id)
    return DeletedOut(id=memory_id, seq=client.delete(memory_id))


@router.post("/{memory_id}/associations", status_code=201)
def associate(request: Request, caller: Writer, memory_id: IdPath, body: Link) -> AssociationOut:
    """Link a memory to another one of its namespace; an equal link is updated."""
    client: MemoryClient = request.app.state.client
    caller.sees(client, memory_id)
    caller.sees(client, body.related_memory_id)
    made = client.associate(
        memory_id,
        body.related_memory_id,
        body.relationship_type,
        strength=body.strength,
        metadata=body.metadata,
    )
    return AssociationOut.model_validate(made.as_json())


@router.delete("/{memory_id}/associations/{related_memory_id}")
def dissociate(
    request: Request,
    caller: Writer,
    memory_id: IdPath,
    related_memory_id: IdPath,
    relationship_type: Annotated[Name | None, Query()] = None,
) -> RemovedOut:
    """Remove the links from a memory to another one, or only the one of this type."""
    client: MemoryClient = request.app.state.client
    caller.sees(client, memory_id)
    return RemovedOut(removed=client.dissociate(memory_id, related_memory_id, relationship_type))


@router.get("/{memory_id}/related")
def get_related(
    request: Request,
    caller: Reader,
    memory_id: IdPath,
    relationship_type: Annotated[Name | None, Query()] = None,
    direction: Annotated[str, Query(pattern="^(outgoing|incoming|both)$")] = "both",
    min_strength: Annotated[float, Query(ge=0, le=1)] = 0.0,
    depth: Annotated[int, Query(ge=1, le=10)] = 1,
) -> RelatedMemoriesOut:
    """Return what is related to a memory, the strongest first."""
    client: MemoryClient = request.app.state.client
    caller.sees(client, memory_id)
    found = client.related(
        memory_id,
        relationship_type=relationship_type,
        direction=direction,
        min_strength=min_strength,
        depth=depth,
    )
    return RelatedMemoriesOut.model_validate({"related": [one.as_json() for one in found]})


def _handed_over(
    request: Request, caller: Caller, body: CreateMemories, idempotency_key: str | None
) -> tuple[Operation, bool]:
    """Return the operation, and whether it is new: not that of the same request before."""
    client: MemoryClient = request.app.state.client
    operations: Operations = request.app.state.operations
    namespace = caller.namespace(body.namespace)
    operation_id, known = new_operation_id(), None
    if idempotency_key is not None:
        digest = hashlib.sha256(f"{namespace} {body.model_dump_json()}".encode()).hexdigest()
        operation_id, is_same = operations.claim(caller.key.id, idempotency_key, digest=digest)
        if not is_same:
            detail = "this Idempotency-Key was used for another request"
            raise Refused(422, "idempotency-key-reused", detail)
        known = operations.get(operation_id)
    if known is not None:
        return known, False
    drafts = [draft.model_dump(exclude_none=True) for draft in body.memories]
    operation = hand_over(client, drafts, namespace=namespace, operation_id=operation_id)
    keep(operations, operation)
    return operation, True


def _changed(request: Request, caller: Caller, memory_id: int, body: UpdateMemory) -> Operation:
    client: MemoryClient = request.app.state.client
    operations: Operations = request.app.state.operations
    caller.sees(client, memory_id)
    receipt = client.update(memory_id, **body.model_dump(exclude_none=True))
    operation = operation_on(receipt)
    keep(operations, operation)
    return operation


def _out(memory: Memory) -> MemoryOut:
    return MemoryOut.model_validate(memory.as_json())
