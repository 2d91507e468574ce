"""Memories that say the same: of several, a search returns the best one."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memory.models import Memory, SearchHit


def first_of_each(hits: Iterable[SearchHit]) -> Iterator[SearchHit]:
    """Yield the hits without those that say what one before them says."""
    seen = set()
    for hit in hits:
        said = _said(hit.memory)
        if said not in seen:
            seen.add(said)
            yield hit


def _said(memory: Memory) -> tuple[str, ...]:
    """Return what two memories share that say the same: type, author, and text but for blanks and case."""
    text = " ".join(unicodedata.normalize("NFKC", memory.content).casefold().split())
    return memory.memory_type, repr(memory.metadata.get("author")), text
