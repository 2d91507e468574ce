"""Finds related memories: a bounded walk along associations, its strengths multiplied."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from memory.models import Relation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory.models import Direction, MemoryAssociation, MemoryId
    from memory.store.associations import Associations

MAX_DEPTH = 10
WALKED_ON = 10_000
"""From each step of a walk, at most so many memories are walked on, the strongest."""


def related(
    associations: Associations,
    memory_id: MemoryId,
    *,
    relationship_type: str | None = None,
    direction: Direction | None = None,
    min_strength: float = 0.0,
    depth: int = 1,
) -> list[Relation]:
    """Return how other memories are related to this one, the strongest first.

    Every association with the memory itself is listed. A memory that is only reached over others is
    listed once, by its strongest walk of at most `depth` steps; a walk's strength is the product of its
    steps' strengths, so it never grows on the way, and what falls below `min_strength` ends there.

    Args:
        associations: where they lie.
        memory_id: where the walk begins.
        relationship_type: only along associations of this type.
        direction: only along ("outgoing") or only against ("incoming") the associations; both where absent.
        min_strength: 0..1; nothing weaker, over the whole walk.
        depth: steps, 1..10.

    """
    found: list[Relation] = []
    best: dict[MemoryId, Relation] = {}
    ends = [_start(memory_id)]
    for step in range(depth):
        edges = associations.around(
            [end.memory_id for end in ends],
            direction=direction,
            relationship_type=relationship_type,
            min_strength=min_strength,
        )
        better: dict[MemoryId, Relation] = {}
        for relation in _extended(ends, edges, direction):
            if relation.memory_id == memory_id or relation.strength < min_strength:
                continue
            if step == 0:
                found.append(relation)
            known = better.get(relation.memory_id) or best.get(relation.memory_id)
            if known is None or relation.strength > known.strength:
                better[relation.memory_id] = relation
        best.update(better)
        ends = heapq.nlargest(WALKED_ON, better.values(), key=lambda r: (r.strength, -r.memory_id))
    direct = {relation.memory_id for relation in found}
    found += [relation for i, relation in best.items() if i not in direct]
    return sorted(found, key=lambda r: (-r.strength, r.depth, r.memory_id))


def neighbours(associations: Associations, memory_ids: Sequence[MemoryId], *, limit: int) -> list[Relation]:
    """Return the memories directly related to these, each once by its strongest association.

    None of `memory_ids` itself is among them. The strongest come first, at most `limit`; of equal ones
    those that are related to the earliest of `memory_ids`.
    """
    given = set(memory_ids)
    ends = [_start(i) for i in memory_ids]
    strongest: dict[MemoryId, Relation] = {}
    for relation in _extended(ends, associations.around(memory_ids), None):
        known = strongest.get(relation.memory_id)
        if relation.memory_id not in given and (known is None or relation.strength > known.strength):
            strongest[relation.memory_id] = relation
    place = {i: n for n, i in enumerate(memory_ids)}
    return heapq.nsmallest(
        limit, strongest.values(), key=lambda r: (-r.strength, place[r.path[0]], r.memory_id)
    )


def _start(memory_id: MemoryId) -> Relation:
    """Return the empty walk."""
    return Relation(
        memory_id=memory_id, type="", strength=1.0, direction="outgoing", metadata={}, path=(memory_id,)
    )


def _extended(
    ends: Sequence[Relation], edges: Sequence[MemoryAssociation], direction: Direction | None
) -> Iterator[Relation]:
    """Yield each walk that goes one step further than one of `ends`, along one of `edges`."""
    end_at = {end.memory_id: end for end in ends}
    for edge in edges:
        there, here = edge.related_memory_id, edge.memory_id
        if direction != "incoming" and here in end_at:
            yield _step(end_at[here], there, edge, "outgoing")
        if direction != "outgoing" and there in end_at:
            yield _step(end_at[there], here, edge, "incoming")


def _step(end: Relation, to: MemoryId, edge: MemoryAssociation, direction: Direction) -> Relation:
    return Relation(
        memory_id=to,
        type=edge.relationship_type,
        strength=end.strength * edge.strength,
        direction=direction,
        metadata=edge.metadata,
        path=(*end.path, to),
    )
