"""What travels over HTTP and MCP: requests that are refused where anything is unknown, and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from api_stub.fields import (
    LARGEST_WHOLE,
    WHOLE,
    IdNumber,
    Instant,
    Metadata,
    Name,
    Share,
    Text,
    TypeName,
    TypeNames,
)
from memory.models import MemoryState
from memory.validation import MAX_LIMIT

MOST_AT_ONCE = 500
"""As many as the queue takes at once: all of them are accepted, or none."""


_MOST_FIELDS = 100
_MOST_READ = 2100
"""Memories that one answer of a search may hold, with what was said around them: each may have 32 KiB."""


class Request(BaseModel):
    """Anything sent: strict, so that true is no number and 1 no text, and without unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, data: Any) -> Any:
        """Refuse at once what is far from any body: each unknown field would be a fault of its own."""
        if isinstance(data, dict) and len(data) > _MOST_FIELDS:
            raise PydanticCustomError("too_many_fields", "must have the fields that the OpenAPI names")
        return data


class Draft(Request):
    """A memory that is handed over."""

    content: Annotated[Text, Field(examples=["Inês is allergic to hazelnuts"])]
    memory_type: TypeName = "episodic"
    source: Name = "user"
    metadata: Annotated[Metadata, Field(examples=[{"importance": 0.9, "author": "Inês"}])] = {}
    uid: Annotated[Name | None, Field(description="Idempotency key: the same one again adds nothing.")] = None
    created_at: Annotated[
        Instant | None,
        Field(description="ISO 8601; now where absent.", examples=["2025-03-04T18:12:09+00:00"]),
    ] = None


class CreateMemories(Request):
    """One memory or many, all of one namespace."""

    namespace: Name | None = None
    memories: Annotated[list[Draft], Field(min_length=1, max_length=MOST_AT_ONCE, fail_fast=True)]


class UpdateMemory(Request):
    """What is to be changed of a memory; the rest stays."""

    content: Text | None = None
    memory_type: TypeName | None = None
    source: Name | None = None
    metadata: Annotated[
        Metadata | None, Field(description="Merged into what is there (RFC 7396): null removes a key.")
    ] = None


class SearchBody(Request):
    """A search; docs/search.md says what each option means."""

    query: Annotated[Text, Field(examples=["What must she not eat?"])]
    namespace: Name | None = None
    memory_types: TypeNames | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE] = 5
    min_score: Annotated[float, Field(ge=-1, le=1)] = -1.0
    mode: Literal["hybrid", "vector", "words"] = "hybrid"
    where: Annotated[dict[str, Any] | None, Field(examples=[{"metadata.author": "Inês"}])] = None
    source: Annotated[list[Name], Field(min_length=1, max_length=MAX_LIMIT, fail_fast=True)] | None = None
    since: Instant | None = None
    until: Instant | None = None
    read_times: bool = False
    now: Instant | None = None
    recency: Share = 0.0
    importance: Share = 0.0
    access: Share = 0.0
    half_life_days: Annotated[float, Field(ge=0.001, le=36525)] = 30.0
    diversity: Share = 0.0
    distinct: bool = False
    rerank: bool = False
    after: str | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=10_000_000), WHOLE] = None
    explain: bool = False
    expand: Annotated[int, Field(ge=0, le=MAX_LIMIT), WHOLE] = 0
    context: Annotated[int, Field(ge=0, le=10), WHOLE] = 0
    min_seq: Annotated[
        int | None,
        Field(ge=0, le=LARGEST_WHOLE, description="The write that must be seen."),
        WHOLE,
    ] = None
    wait_s: Annotated[float | None, Field(gt=0, le=30, description="How long to wait for it.")] = None

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.limit * (1 + 2 * self.context) > _MOST_READ:
            allowed = f"limit x (1 + 2 x context) must be at most {_MOST_READ}"
            raise PydanticCustomError("too_much", "{allowed}", {"allowed": allowed})
        return self


class Uids(Request):
    """Memories that were handed over, by their uids."""

    namespace: Name | None = None
    uids: Annotated[list[Name], Field(min_length=1, max_length=1000, fail_fast=True)]
    wait_s: Annotated[float, Field(ge=0, le=30, description="How long to wait until all are settled.")] = 0.0


class Link(Request):
    """An association from one memory to another of its namespace."""

    related_memory_id: Annotated[IdNumber, Field(examples=[2])]
    relationship_type: Annotated[Name, Field(examples=["caused_by"])]
    strength: Share = 1.0
    metadata: Metadata = {}


class CleanupBody(Request):
    """What is forgotten: what is both older and less important than these."""

    namespace: Name | None = None
    max_age_days: Annotated[float, Field(ge=0, le=36_500)] = 30.0
    min_importance: Share = 0.3
    memory_types: TypeNames | None = None
    dry_run: bool = True
    force: Annotated[bool, Field(description="Past the brake.")] = False


class EraseNamespaceBody(Request):
    """What is erased wherever it is: a namespace, or only what it has from one source."""

    namespace: Name
    source: Name | None = None
    dry_run: bool = True


class EraseSourceBody(Request):
    """The same of all that came from one source, in every namespace of the key."""

    source: Name
    dry_run: bool = True


class EraseIdsBody(Request):
    """The same of these memories."""

    ids: Annotated[list[IdNumber], Field(min_length=1, max_length=1000, fail_fast=True)]
    dry_run: bool = True


class MemoryOut(BaseModel):
    """A stored memory."""

    id: int
    uid: str
    namespace: str
    content: str
    memory_type: str
    source: str
    metadata: dict[str, Any]
    importance: float | None
    created_at: datetime
    last_access_at: datetime | None
    version: int


class MemoriesOut(BaseModel):
    """A page of stored memories, newest first."""

    memories: list[MemoryOut]
    next: Annotated[str | None, Field(description="`cursor` of the next page; absent at the end.")] = None


class ContextOut(BaseModel):
    """A memory with what was said around it, in order."""

    memories: list[MemoryOut]


class TermOut(BaseModel):
    """A part of a score."""

    value: float
    weight: float


class RelationOut(BaseModel):
    """How a memory is related to the one asked about."""

    type: str
    strength: float
    direction: str
    metadata: dict[str, Any]
    depth: int
    path: list[int]


class RelatedOut(MemoryOut):
    """A memory, and how it is related."""

    relation: RelationOut


class RelatedMemoriesOut(BaseModel):
    """What is related to a memory, the strongest first."""

    related: list[RelatedOut]


class HitOut(MemoryOut):
    """One answer of a search."""

    score: float
    rank: int
    terms: dict[str, TermOut] | None = None
    boosts: dict[str, TermOut] | None = None
    rerank_ms: float | None = None
    cursor: str | None = None
    relation: RelationOut | None = None
    before: list[MemoryOut] | None = None
    after: list[MemoryOut] | None = None


class SearchOut(BaseModel):
    """What was found, best first."""

    results: list[HitOut]
    next: Annotated[str | None, Field(description="`after` of the next page; absent at the end.")] = None


class ItemOut(BaseModel):
    """How far one memory of an operation has come."""

    uid: str
    state: MemoryState
    id: int | None
    seq: int | None
    reason: str | None


class OutcomesOut(BaseModel):
    """How far memories have come, in the order of the request."""

    outcomes: list[ItemOut]


class RejectedOut(BaseModel):
    """A memory that was refused, by its position in what was handed over."""

    position: int
    reason: str


class CountsOut(BaseModel):
    """How many of an operation's memories are in each state."""

    accepted: int = 0
    stored: int = 0
    searchable: int = 0
    dead: int = 0
    deleted: int = 0
    rejected: int = 0


class OperationOut(BaseModel):
    """How far a hand-over has come."""

    id: str
    namespace: str
    status: Annotated[
        Literal["running", "succeeded", "partly", "failed"],
        Field(description="running until no memory changes its state any more"),
    ]
    counts: CountsOut
    seq: Annotated[int | None, Field(description="`min_seq` of a search that must see all of it.")]
    memories: list[ItemOut]
    rejected: list[RejectedOut]
    created_at: datetime


class DeletedOut(BaseModel):
    """A memory that is gone for good."""

    id: int
    state: Literal["deleted"] = "deleted"
    seq: int


class AssociationOut(BaseModel):
    """A directed link between two memories."""

    id: int
    memory_id: int
    related_memory_id: int
    relationship_type: str
    strength: float
    metadata: dict[str, Any]
    created_at: datetime


class RemovedOut(BaseModel):
    """How many links were removed."""

    removed: int


class CleanupOut(BaseModel):
    """What a cleanup found and did."""

    total_found: int
    deleted: int
    skipped: int
    dry_run: bool
    stopped_early: bool
    by_namespace: dict[str, int]


class StatsOut(BaseModel):
    """How many memories of a namespace are in each state."""

    namespace: str
    stored: int
    searchable: int
    pending: int
    deleted: int


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    namespaces: Annotated[list[str] | None, Field(description="only these; null for all")]
    requests_a_minute: int
    created_at: datetime
    revoked_at: datetime | None


class HealthOut(BaseModel):
    """Whether this process, or the pipeline, is well."""

    status: Literal["ok", "not-ready"]
    reasons: list[str] = []
