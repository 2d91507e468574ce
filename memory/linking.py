"""Associations between memories, checked: what the library and the client let their users do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory.models import Related
from memory.relations import MAX_DEPTH, related
from memory.validation import (
    check_direction,
    check_id,
    check_metadata,
    check_name,
    check_number,
    check_whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory.models import MemoryAssociation
    from memory.store.associations import Associations
    from memory.store.memories import MemoryStore


class Linking:
    """Links memories, and finds what is linked to one."""

    def __init__(self, *, store: MemoryStore, associations: Associations) -> None:
        self._store = store
        self._associations = associations

    def link(
        self,
        memory_id: object,
        related_memory_id: object,
        *,
        relationship_type: str,
        strength: float,
        metadata: Mapping[str, Any] | None,
    ) -> MemoryAssociation:
        """Link one memory to another. One of this type between them, in this direction, is updated.

        Args:
            memory_id: from.
            related_memory_id: to; another memory of the same namespace.
            relationship_type: any name, such as `caused_by`.
            strength: 0..1.
            metadata: a JSON object.

        Raises:
            NotFound: one of the two is not there, or was deleted.
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached.

        """
        return self._associations.put(
            check_id("memory_id", memory_id),
            check_id("related_memory_id", related_memory_id),
            relationship_type=check_name("relationship_type", relationship_type),
            strength=check_number("strength", strength, low=0, high=1),
            metadata=check_metadata(metadata),
        )

    def unlink(self, memory_id: object, related_memory_id: object, *, relationship_type: str | None) -> int:
        """Remove the link of this type from the one to the other, or all of them; return how many."""
        return self._associations.remove(
            check_id("memory_id", memory_id),
            check_id("related_memory_id", related_memory_id),
            relationship_type=_type(relationship_type),
        )

    def related(
        self,
        memory_id: object,
        *,
        relationship_type: str | None,
        min_strength: float,
        direction: str,
        depth: int,
    ) -> list[Related]:
        """Return the memories related to this one, the strongest first.

        Every association with the memory itself is listed. A memory that is only reached over others is
        listed once, by its strongest walk; a walk's strength is the product of its steps' strengths.

        Args:
            memory_id: a live memory.
            relationship_type: only along associations of this type; all for `None`.
            min_strength: 0..1; nothing weaker, over the whole walk.
            direction: "outgoing" (from the memory on), "incoming" (towards it) or "both".
            depth: steps at most, 1..10.

        Raises:
            NotFound: there is no such live memory.
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached.

        """
        begin = check_id("memory_id", memory_id)
        self._store.get(begin)
        relations = related(
            self._associations,
            begin,
            relationship_type=_type(relationship_type),
            direction=check_direction(direction),
            min_strength=check_number("min_strength", min_strength, low=0, high=1),
            depth=check_whole("depth", depth, low=1, high=MAX_DEPTH),
        )
        live = self._store.live([r.memory_id for r in relations])
        return [Related(live[r.memory_id], r) for r in relations if r.memory_id in live]


def _type(value: str | None) -> str | None:
    return None if value is None else check_name("relationship_type", value)
