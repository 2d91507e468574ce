"""What the tools give back: short, since a model reads every word of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from memory.models import Memory, Related, SearchHit


def _is_absent(value: object) -> bool:
    return value is None or value in ({}, [])


def _optional(description: str, **more: Any) -> Any:
    return Field(description=description, exclude_if=_is_absent, **more)


class Note(BaseModel):
    """One memory."""

    id: int
    content: str
    memory_type: str
    source: Annotated[str, Field(description="where it comes from")]
    created_at: datetime
    metadata: Annotated[dict[str, Any], _optional("its JSON object")] = {}

    @classmethod
    def of(cls, memory: Memory) -> Note:
        """Return what a model needs of a memory."""
        return cls(
            id=memory.id,
            content=memory.content,
            memory_type=memory.memory_type.value,
            source=memory.source,
            created_at=memory.created_at,
            metadata=memory.metadata,
        )


class Found(Note):
    """A memory that a search found."""

    score: Annotated[float, Field(description="how relevant it is; higher is more")]
    before: Annotated[list[Note], _optional("what was said before it")] = []
    after: Annotated[list[Note], _optional("what was said after it")] = []

    @classmethod
    def of_hit(cls, hit: SearchHit) -> Found:
        """Return what a model needs of a hit."""
        return cls(
            **dict(Note.of(hit.memory)),
            score=round(hit.score, 4),
            before=[Note.of(memory) for memory in hit.before],
            after=[Note.of(memory) for memory in hit.after],
        )


class FoundMemories(BaseModel):
    """What a search found, the most relevant first."""

    memories: list[Found]


class RelatedNote(Note):
    """A memory that is related to another one."""

    relationship_type: str
    direction: Annotated[str, Field(description="outgoing: from the memory asked about to this one")]
    strength: float
    depth: Annotated[int, Field(description="how many associations away")]

    @classmethod
    def of_related(cls, related: Related) -> RelatedNote:
        """Return what a model needs of a related memory."""
        relation = related.relation
        return cls(
            **dict(Note.of(related.memory)),
            relationship_type=relation.type,
            direction=relation.direction,
            strength=relation.strength,
            depth=relation.depth,
        )


class RelatedMemories(BaseModel):
    """What is related to a memory, the strongest first."""

    memories: list[RelatedNote]


class Page(BaseModel):
    """Memories, newest first."""

    memories: list[Note]
    next_cursor: Annotated[str | None, _optional("`cursor` of the next page; absent at the end")] = None


class Deleted(BaseModel):
    """A memory that is gone for good: no search finds it from now on."""

    id: int
    seq: int


class Associated(BaseModel):
    """A directed link between two memories."""

    memory_id: int
    related_memory_id: int
    relationship_type: str
    strength: float


class Counted(BaseModel):
    """How many memories a namespace has."""

    namespace: str
    stored: int
    searchable: Annotated[int, Field(description="of the stored ones: those that a search can find")]


class Preview(BaseModel):
    """What a cleanup would forget. Nothing was removed."""

    would_be_forgotten: int
