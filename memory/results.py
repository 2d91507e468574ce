"""What a `MemoryManager` answers: plain dictionaries around `Memory` objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from memory.models import Memory

if TYPE_CHECKING:
    from memory.models import Relation, ScoreTerm, SearchHit


class Relationship(TypedDict):
    """How a memory is related to the one asked about: over one association, or a walk along several.

    Over a walk, `type`, `direction` and `metadata` are those of its last step.
    """

    type: str
    strength: float  # 0..1; over a walk, the product of its steps
    direction: str  # "outgoing": towards the related memory; "incoming": from it
    metadata: dict[str, Any]
    depth: int  # steps, from 1
    path: list[int]  # the memories walked over, both ends included


class RelatedMemory(TypedDict):
    """One answer of `get_related_memories`."""

    memory: Memory
    relationship: Relationship


class SearchResult(TypedDict):
    """One answer of `search_memories`, with what was said around it if that was asked for.

    The last two are only there where it came along as a neighbour of a hit.
    """

    memory: Memory
    score: float  # higher is more relevant; its range hangs on the mode, as `memory.models.SearchMode` says
    rank: int  # from 1
    cursor: NotRequired[str]  # `after` of the next page, if this is the last result of its page
    terms: NotRequired[dict[str, ScoreTerm]]  # what the score is the sum of, where that was asked for
    boosts: NotRequired[dict[str, ScoreTerm]]  # what that sum was multiplied by, likewise
    rerank_ms: NotRequired[float]  # a reranker has set the score instead, and took so long for all it read
    before: NotRequired[list[Memory]]  # in the order of the conversation
    after: NotRequired[list[Memory]]
    expanded_from: NotRequired[int]  # the hit's id
    relationship: NotRequired[Relationship]


class CleanupStats(TypedDict):
    """What `cleanup_old_memories` found and did."""

    total_found: int
    deleted: int
    skipped: int  # found and kept: a dry run, or changed meanwhile


def relationship_of(relation: Relation) -> Relationship:
    """Return the dictionary of a relation."""
    return Relationship(
        type=relation.type,
        strength=relation.strength,
        direction=relation.direction,
        metadata=relation.metadata,
        depth=relation.depth,
        path=list(relation.path),
    )


def result_of(hit: SearchHit) -> SearchResult:
    """Return the dictionary of a hit, or of a hit's neighbour."""
    result = SearchResult(memory=hit.memory, score=hit.score, rank=hit.rank)
    if hit.cursor:
        result["cursor"] = hit.cursor
    if hit.terms:
        result["terms"] = dict(hit.terms)
    if hit.boosts:
        result["boosts"] = dict(hit.boosts)
    if hit.rerank_ms is not None:
        result["rerank_ms"] = hit.rerank_ms
    if hit.before or hit.after:
        result["before"], result["after"] = list(hit.before), list(hit.after)
    if hit.relation:
        result["expanded_from"] = hit.relation.path[0]
        result["relationship"] = relationship_of(hit.relation)
    return result
