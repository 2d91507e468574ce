"""The domain's types: what a memory is, the states it passes, what a search gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

MemoryId = NewType("MemoryId", int)
"""A stored memory's number: unique in the whole database, never used again."""

Seq = NewType("Seq", int)
"""Position in the log of index events, from 1, without gaps. Also the visibility token of a write."""

Metadata = dict[str, Any]
"""JSON object that travels with a memory."""

NEUTRAL_IMPORTANCE = 0.5
"""What a memory without an importance counts as."""


class MemoryType(StrEnum):
    """What kind of thing is remembered."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    REFLECTION = "reflection"
    TASK = "task"
    PREFERENCE = "preference"
    RESPONSE = "response"


class SearchMode(StrEnum):
    """What a search goes by."""

    HYBRID = "hybrid"  # meaning, words, and what was said around: see `memory.relevance`
    VECTOR = "vector"  # meaning alone: the score is the cosine, -1..1
    WORDS = "words"  # words alone: the score is BM25 as a share of what the query could reach, 0..1


class MemoryState(StrEnum):
    """Where a memory is on its path."""

    ACCEPTED = "accepted"  # on the stream, waiting to be embedded
    STORED = "stored"  # a row in the database, its index event not applied yet
    SEARCHABLE = "searchable"  # in the index
    DEAD = "dead"  # a dead letter: it can never be stored, and says why
    DELETED = "deleted"  # a tombstone: it stays gone, even when delivered again


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What vectors belong to: two with equal identities may be compared and mixed."""

    lineage: str  # the database's history, another one after a re-creation
    model_fingerprint: str
    dim: int  # numbers of a vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One live memory as it stands in the database. Instants are aware UTC."""

    id: MemoryId
    uid: str
    namespace: str
    content: str
    memory_type: MemoryType
    source: str
    metadata: Metadata
    importance: float | None
    created_at: datetime
    last_access_at: datetime | None
    version: int

    @property
    def last_accessed(self) -> datetime | None:
        """When a search last found it, `None` for never: another name of `last_access_at`."""
        return self.last_access_at

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; instants in ISO 8601."""
        return {
            "id": self.id,
            "uid": self.uid,
            "namespace": self.namespace,
            "content": self.content,
            "memory_type": self.memory_type.value,
            "source": self.source,
            "metadata": self.metadata,
            "importance": self.importance,
            "created_at": self.created_at.isoformat(),
            "last_access_at": self.last_access_at.isoformat() if self.last_access_at else None,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Memory:
        """Read what `as_json` wrote."""
        last_access_at = data["last_access_at"]
        return cls(
            id=MemoryId(data["id"]),
            uid=data["uid"],
            namespace=data["namespace"],
            content=data["content"],
            memory_type=MemoryType(data["memory_type"]),
            source=data["source"],
            metadata=data["metadata"],
            importance=data["importance"],
            created_at=datetime.fromisoformat(data["created_at"]),
            last_access_at=datetime.fromisoformat(last_access_at) if last_access_at else None,
            version=data["version"],
        )


Direction = Literal["outgoing", "incoming"]
"""How an association is walked: from a memory to the related one, or against that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAssociation:
    """A directed, typed link between two live memories of one namespace; one for each (from, to, type)."""

    id: int
    memory_id: MemoryId  # from
    related_memory_id: MemoryId  # to
    relationship_type: str
    strength: float  # 0..1
    metadata: Metadata
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "id": self.id,
            "memory_id": self.memory_id,
            "related_memory_id": self.related_memory_id,
            "relationship_type": self.relationship_type,
            "strength": self.strength,
            "metadata": self.metadata,
            "created_at": self.created_at.isoformat(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MemoryAssociation:
        """Read what `as_json` wrote."""
        return cls(**{**data, "created_at": datetime.fromisoformat(data["created_at"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How a memory is related to another one, over one association or a walk along several.

    Over a walk, `type`, `direction` and `metadata` are those of its last step, and `strength` is the
    product of all its steps.
    """

    memory_id: MemoryId  # the memory reached
    type: str
    strength: float  # 0..1
    direction: Direction
    metadata: Metadata
    path: tuple[MemoryId, ...]  # from the memory asked about to the one reached, both included

    @property
    def depth(self) -> int:
        """How many associations were walked, from 1."""
        return len(self.path) - 1

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "type": self.type,
            "strength": self.strength,
            "direction": self.direction,
            "metadata": self.metadata,
            "depth": self.depth,
            "path": list(self.path),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Relation:
        """Read what `as_json` wrote."""
        path = tuple(MemoryId(i) for i in data["path"])
        return cls(
            memory_id=path[-1],
            type=data["type"],
            strength=data["strength"],
            direction=data["direction"],
            metadata=data["metadata"],
            path=path,
        )


class Related(NamedTuple):
    """A memory, and how it is related to the one asked about."""

    memory: Memory
    relation: Relation

    def as_json(self) -> dict[str, Any]:
        """Return the memory's mapping with `relation` added."""
        return {**self.memory.as_json(), "relation": self.relation.as_json()}


class ScoreTerm(NamedTuple):
    """A part of a score."""

    value: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One answer of a search.

    `score` says how relevant it is, higher is more: what it is made of and its range hang on the search's
    mode, 0..1 unless that is `vector`. `terms` are what it is the sum of: value times weight of each.
    `boosts` are what that sum was multiplied by: 1 - weight (1 - value) of each. `rerank_ms` is set where a
    reranker has set the score instead: how long it took for all it read. `rank` counts from 1, over all
    pages; `cursor` is where the next page begins, if this is the last hit of its own.
    `relation` is set where the memory came along as a neighbour of a hit, and names that hit.
    `before` and `after` are what was said around it in its conversation, in order, if that was asked for.
    """

    memory: Memory
    score: float
    rank: int
    terms: Mapping[str, ScoreTerm] = field(default_factory=dict)
    boosts: Mapping[str, ScoreTerm] = field(default_factory=dict)
    rerank_ms: float | None = None
    cursor: str | None = None
    relation: Relation | None = None
    before: tuple[Memory, ...] = ()
    after: tuple[Memory, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the memory's mapping with `score` and `rank` added, and what else there is of a hit."""
        found = {**self.memory.as_json(), "score": self.score, "rank": self.rank}
        for name, terms in (("terms", self.terms), ("boosts", self.boosts)):
            if terms:
                found[name] = {each: term._asdict() for each, term in terms.items()}
        if self.rerank_ms is not None:
            found["rerank_ms"] = self.rerank_ms
        if self.cursor:
            found["cursor"] = self.cursor
        if self.relation:
            found["relation"] = self.relation.as_json()
        for name, some in (("before", self.before), ("after", self.after)):
            if some:
                found[name] = [memory.as_json() for memory in some]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchHit:
        """Read what `as_json` wrote."""
        relation = data.get("relation")
        return cls(
            memory=Memory.from_json(data),
            score=data["score"],
            rank=data["rank"],
            terms={name: ScoreTerm(**term) for name, term in data.get("terms", {}).items()},
            boosts={name: ScoreTerm(**term) for name, term in data.get("boosts", {}).items()},
            rerank_ms=data.get("rerank_ms"),
            cursor=data.get("cursor"),
            relation=Relation.from_json(relation) if relation else None,
            before=tuple(Memory.from_json(memory) for memory in data.get("before", ())),
            after=tuple(Memory.from_json(memory) for memory in data.get("after", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof that a memory was accepted; what to wait for."""

    uid: str
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far one accepted memory has come.

    `seq` is its newest index event, `None` once that event is pruned (then it is long applied).
    `reason` is set for a dead letter.
    """

    receipt: Receipt
    state: MemoryState
    id: MemoryId | None = None
    seq: Seq | None = None
    reason: str | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in {MemoryState.SEARCHABLE, MemoryState.DEAD, MemoryState.DELETED}
