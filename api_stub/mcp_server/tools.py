"""The tools: what an assistant may do with its memory. Their docstrings are written for a model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

from anyio.to_thread import run_sync
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from pydantic import BaseModel, ConfigDict, Field

from api_stub.access import Caller
from api_stub.bodies import MOST_AT_ONCE, OperationOut
from api_stub.client import MemoryClient
from api_stub.fields import IdNumber, PageCursor, Share, TypeName, TypeNames
from api_stub.handing_over import KeepsOperations, hand_over, keep, operation_on, report, report_accepted
from api_stub.mcp_server.notes import (
    Associated,
    Counted,
    Deleted,
    Found,
    FoundMemories,
    Note,
    Page,
    Preview,
    RelatedMemories,
    RelatedNote,
)
from memory.api_keys import KeyScope
from memory.cleanup import CleanupPolicy
from memory.errors import InvalidMemory, MemorySystemError, NotFound, Recoverable
from memory.models import Outcome, Receipt
from memory.operations import Operation
from memory.validation import MAX_NAME_LENGTH, check_types

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_WAIT_S = 30

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Metadata = dict[str, Any]
Namespace = Annotated[
    Name | None,
    Field(description="Whose memories. Leave it out unless you were told one."),
]
Types = Annotated[TypeNames | None, Field(description="Only these; all if left out.")]
Id = Annotated[IdNumber, Field(strict=True, description="The memory's `id`.")]
Importance = Annotated[
    Share | None, Field(description="0 to 1: how much it matters; what matters little is forgotten some day.")
]
Wait = Annotated[
    float,
    Field(
        ge=0,
        le=LONGEST_WAIT_S,
        description="Seconds to wait until a search can find it; with 0, ask get_operation_status later.",
    ),
]


class NewMemory(BaseModel):
    """A memory to be added."""

    model_config = ConfigDict(extra="forbid")

    content: Annotated[str, Field(min_length=1)]
    memory_type: TypeName = "episodic"
    importance: Importance = None
    source: Name = "user"
    metadata: Metadata = {}
    created_at: Annotated[str | None, Field(description="When it was, in ISO 8601; now if left out.")] = None
    uid: Annotated[Name | None, Field(description="The same uid again adds nothing.")] = None

    def draft(self) -> dict[str, Any]:
        """Return the arguments of `MemoryClient.enqueue`."""
        given = self.model_dump(exclude_none=True, exclude={"importance"})
        if self.importance is not None:
            given["metadata"] = {**self.metadata, "importance": self.importance}
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What stands behind the tools: whose memory, and who asks."""

    client: Callable[[], MemoryClient]
    operations: Callable[[], KeepsOperations]
    caller: Callable[[Context], Caller]
    wait: Callable[[MemoryClient, Sequence[Receipt], float], Awaitable[list[Outcome]]]
    """does what `MemoryClient.wait` does"""


def _told(tool: Callable[Concatenate[MemoryTools, P], T]) -> Callable[Concatenate[MemoryTools, P], T]:
    """Let a model read why a call failed, and nothing that is none of its business."""

    @wraps(tool)
    def call(self: MemoryTools, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return tool(self, *args, **kwargs)
        except MemorySystemError as error:
            raise ToolError(str(error)) from error

    return call


def _told_later(
    tool: Callable[Concatenate[MemoryTools, P], Awaitable[T]],
) -> Callable[Concatenate[MemoryTools, P], Awaitable[T]]:
    """The same for a tool that waits."""

    @wraps(tool)
    async def call(self: MemoryTools, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await tool(self, *args, **kwargs)
        except MemorySystemError as error:
            raise ToolError(str(error)) from error

    return call


class MemoryTools:
    """The tools, over one door. Each says in its docstring what a model must know to use it."""

    def __init__(self, door: Door) -> None:
        self._door = door

    @_told_later
    async def add_memory(
        self,
        ctx: Context,
        content: Annotated[
            str,
            Field(min_length=1, description="What to remember: one fact or event, understandable by itself."),
        ],
        memory_type: Annotated[
            TypeName,
            Field(
                description="episodic: what happened; semantic: a fact; preference: what somebody likes; "
                "task: something to do; reflection: a conclusion of yours; response: what you answered."
            ),
        ] = "episodic",
        importance: Importance = None,
        source: Annotated[
            Name, Field(description="Where it comes from, such as user or slack:general.")
        ] = "user",
        metadata: Annotated[Metadata | None, Field(description="A JSON object, kept with it.")] = None,
        created_at: Annotated[
            str | None, Field(description="When it was, in ISO 8601; now if left out.")
        ] = None,
        uid: Annotated[
            Name | None, Field(description="Your own key for it: the same one again adds nothing.")
        ] = None,
        namespace: Namespace = None,
        wait_s: Wait = 10,
    ) -> OperationOut:
        """Remember one thing for later conversations.

        Use it for what will still matter: facts about people, preferences, decisions, plans, events. Write
        names and dates out ("Ines moved to Porto in May 2025", not "she moved there last month"). Search
        first where it may be there already, and update that memory instead.

        Waits until a search can find it. `status` is "succeeded" then; "running" means that it is accepted
        and safe, and a search finds it a little later. `memories[0].id` is its id.
        """
        new = NewMemory(
            content=content,
            memory_type=memory_type,
            importance=importance,
            source=source,
            metadata=metadata or {},
            created_at=created_at,
            uid=uid,
        )
        return await self._add(ctx, [new], namespace=namespace, wait_s=wait_s)

    @_told_later
    async def add_memories(
        self,
        ctx: Context,
        memories: Annotated[list[NewMemory], Field(min_length=1, max_length=MOST_AT_ONCE)],
        namespace: Namespace = None,
        wait_s: Wait = 20,
    ) -> OperationOut:
        """Remember several things at once, up to 500. Each is as for add_memory.

        Good ones are accepted even where others are refused: `rejected` lists those by their position in
        `memories`, from 0, with the reason. Waits until a search can find them all; if `status` is "running",
        ask get_operation_status with the operation's `id` later.
        """
        return await self._add(ctx, memories, namespace=namespace, wait_s=wait_s)

    @_told
    def search_memories(
        self,
        ctx: Context,
        query: Annotated[
            str, Field(min_length=1, description="What you want to know, as a question or a few words.")
        ],
        limit: Annotated[int, Field(ge=1, le=100, description="How many at most.")] = 10,
        memory_types: Types = None,
        source: Annotated[list[Name] | None, Field(min_length=1, description="Only from these.")] = None,
        since: Annotated[
            str | None, Field(description="Only what was at this instant or later, in ISO 8601.")
        ] = None,
        until: Annotated[str | None, Field(description="Only what was before this instant.")] = None,
        where: Annotated[
            Metadata | None,
            Field(
                description='Only what meets these conditions, such as {"metadata.author": "Ines"} or '
                '{"importance": {"gte": 0.5}}.'
            ),
        ] = None,
        context: Annotated[
            int, Field(ge=0, le=10, description="So many messages around each hit come along.")
        ] = 0,
        namespace: Namespace = None,
    ) -> FoundMemories:
        """Search what was remembered, by meaning and by words; the most relevant first.

        Do this before you answer anything that earlier conversations may bear on. Everything that add_memory
        has said "succeeded" of is found, nothing that was deleted is. The last results may be off the point:
        judge by their content. No results means that nothing in this namespace meets the conditions.
        """
        caller = self._caller(ctx, KeyScope.READ)
        hits = self._door.client().search(
            query,
            limit=limit,
            memory_types=memory_types,
            source=source,
            since=since,
            until=until,
            where=where,
            context=context,
            namespace=caller.namespace(namespace),
        )
        return FoundMemories(memories=[Found.of_hit(hit) for hit in hits])

    @_told
    def get_memory(self, ctx: Context, memory_id: Id) -> Note:
        """Read one memory by its id."""
        caller = self._caller(ctx, KeyScope.READ)
        return Note.of(caller.sees(self._door.client(), memory_id))

    @_told
    def list_memories(
        self,
        ctx: Context,
        limit: Annotated[int, Field(ge=1, le=200)] = 20,
        cursor: Annotated[PageCursor | None, Field(description="`next_cursor` of the page before.")] = None,
        memory_types: Types = None,
        where: Annotated[
            Metadata | None, Field(description="Only what meets these conditions: see search_memories.")
        ] = None,
        namespace: Namespace = None,
    ) -> Page:
        """List memories, newest first. To find something, search_memories is the better way."""
        caller = self._caller(ctx, KeyScope.READ)
        found = self._door.client().list_memories(
            namespace=caller.namespace(namespace),
            memory_types=memory_types,
            where=where,
            after=None if cursor is None else int(cursor),
            limit=limit,
        )
        return Page(
            memories=[Note.of(memory) for memory in found],
            next_cursor=str(found[-1].id) if len(found) == limit else None,
        )

    @_told_later
    async def update_memory(
        self,
        ctx: Context,
        memory_id: Id,
        content: Annotated[str | None, Field(min_length=1, description="Its new text.")] = None,
        memory_type: Annotated[TypeName | None, Field(description="Its new type.")] = None,
        importance: Importance = None,
        metadata: Annotated[
            Metadata | None, Field(description="Merged into what is there; null removes a key.")
        ] = None,
        wait_s: Wait = 10,
    ) -> OperationOut:
        """Change a memory that is no longer right; what you leave out stays as it is. Its id stays too."""
        caller = await run_sync(self._caller, ctx, KeyScope.WRITE)
        if importance is not None:
            metadata = {**(metadata or {}), "importance": importance}
        if content is None and memory_type is None and metadata is None:
            raise InvalidMemory(
                field="content", value=None, allowed="there, or memory_type, importance or metadata"
            )

        def update() -> Operation:
            client = self._door.client()
            caller.sees(client, memory_id)
            receipt = client.update(memory_id, content=content, memory_type=memory_type, metadata=metadata)
            return self._kept(operation_on(receipt))

        return await self._report(await run_sync(update), wait_s=wait_s)

    @_told
    def delete_memory(self, ctx: Context, memory_id: Id) -> Deleted:
        """Delete a memory for good: no search finds it from now on. Do it only where you were asked to."""
        caller = self._caller(ctx, KeyScope.WRITE)
        client = self._door.client()
        caller.sees(client, memory_id)
        return Deleted(id=memory_id, seq=client.delete(memory_id))

    @_told
    def add_association(
        self,
        ctx: Context,
        memory_id: Id,
        related_memory_id: Annotated[IdNumber, Field(description="The `id` of the other memory.")],
        relationship_type: Annotated[
            Name, Field(description="What the first one is to the other, such as caused_by or part_of.")
        ],
        strength: Annotated[Share, Field(description="0 to 1.")] = 1.0,
        metadata: Metadata | None = None,
    ) -> Associated:
        """Link one memory to another one of the same namespace. An equal link is updated."""
        caller = self._caller(ctx, KeyScope.WRITE)
        client = self._door.client()
        for one in (memory_id, related_memory_id):
            caller.sees(client, one)
        made = client.associate(
            memory_id, related_memory_id, relationship_type, strength=strength, metadata=metadata
        )
        return Associated(
            memory_id=made.memory_id,
            related_memory_id=made.related_memory_id,
            relationship_type=made.relationship_type,
            strength=made.strength,
        )

    @_told
    def get_related_memories(
        self,
        ctx: Context,
        memory_id: Id,
        relationship_type: Annotated[
            Name | None, Field(description="Only along links of this type; all if left out.")
        ] = None,
        depth: Annotated[int, Field(ge=1, le=10, description="How many links away at most.")] = 1,
        min_strength: Annotated[Share, Field(description="Nothing weaker.")] = 0.0,
    ) -> RelatedMemories:
        """Read what a memory was linked to with add_association, in both directions, the strongest first."""
        caller = self._caller(ctx, KeyScope.READ)
        client = self._door.client()
        caller.sees(client, memory_id)
        found = client.related(
            memory_id, relationship_type=relationship_type, depth=depth, min_strength=min_strength
        )
        return RelatedMemories(memories=[RelatedNote.of_related(one) for one in found])

    @_told_later
    async def get_operation_status(
        self,
        ctx: Context,
        operation_id: Annotated[str, Field(description="The `id` that add_memory gave back.")],
        wait_s: Wait = 0,
    ) -> OperationOut:
        """Ask how far something is that was still "running"."""
        caller = await run_sync(self._caller, ctx, KeyScope.READ)
        operation = await run_sync(self._door.operations().get, operation_id)
        if operation is None or not caller.knows(operation.namespace):
            raise NotFound(f"no operation {operation_id!r}")
        return await self._report(operation, wait_s=wait_s)

    @_told
    def memory_stats(self, ctx: Context, namespace: Namespace = None) -> Counted:
        """Count the memories of a namespace."""
        name = self._caller(ctx, KeyScope.READ).namespace(namespace)
        counts = self._door.client().counts(namespace=name)
        return Counted(namespace=name, stored=counts.stored, searchable=counts.searchable)

    @_told
    def preview_cleanup(
        self,
        ctx: Context,
        max_age_days: Annotated[float, Field(ge=0, le=36_500)] = 30,
        min_importance: Share = 0.3,
        memory_types: Types = None,
        namespace: Namespace = None,
    ) -> Preview:
        """Count what a cleanup would forget: what is both older and less important than this.

        It removes nothing. A cleanup itself is the operator's: the command `memory cleanup`.
        """
        policy = CleanupPolicy(
            max_age_days=max_age_days,
            min_importance=min_importance,
            memory_types=check_types(memory_types),
            namespace=self._caller(ctx, KeyScope.READ).namespace(namespace),
        )
        return Preview(would_be_forgotten=self._door.client().cleanup(policy, dry_run=True).total_found)

    def read_memory(self, ctx: Context, memory_id: str) -> str:
        """One memory, as JSON."""
        if not re.fullmatch("[1-9][0-9]{0,15}", memory_id):
            raise ResourceNotFoundError(f"no live memory with id {memory_id!r}")
        try:
            caller = self._caller(ctx, KeyScope.READ)
            found = caller.sees(self._door.client(), int(memory_id))
        except NotFound as error:
            raise ResourceNotFoundError(str(error)) from error
        except MemorySystemError as error:
            raise ResourceError(str(error)) from error
        return Note.of(found).model_dump_json()

    def _caller(self, ctx: Context, scope: KeyScope) -> Caller:
        caller = self._door.caller(ctx)
        caller.need(scope)
        return caller

    async def _add(
        self, ctx: Context, memories: list[NewMemory], *, namespace: str | None, wait_s: float
    ) -> OperationOut:
        caller = await run_sync(self._caller, ctx, KeyScope.WRITE)
        name = caller.namespace(namespace)
        drafts = [memory.draft() for memory in memories]
        operation = await run_sync(lambda: self._kept(hand_over(self._door.client(), drafts, namespace=name)))
        try:
            return await self._report(operation, wait_s=wait_s)
        except Recoverable:  # it is accepted all the same; told an error, a model would add it again
            return report_accepted(operation)

    def _kept(self, operation: Operation) -> Operation:
        keep(self._door.operations(), operation)
        return operation

    async def _report(self, operation: Operation, *, wait_s: float) -> OperationOut:
        client = await run_sync(self._door.client)  # it may not be open yet
        return report(operation, await self._door.wait(client, operation.receipts, wait_s))
