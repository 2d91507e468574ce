"""SQL that gives a search the last word: its candidates' rows, with the embeddings that tell exact scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from memory.models import Memory, MemoryId
from memory.schema import memories, next_embeddings
from memory.store.rows import INDEXED, MEMORY_COLUMNS, memory_of, one_of
from memory.store.vectors import SERVING_BESIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A live memory, and the vector that serves now. That may be another model's than the index's."""

    memory: Memory
    embedding: bytes  # float32 little-endian
    model_fingerprint: str | None


_CANDIDATES = (
    select(
        *MEMORY_COLUMNS,
        func.coalesce(next_embeddings.c.embedding, memories.c.embedding).label("embedding"),
        func.coalesce(next_embeddings.c.model_fingerprint, memories.c.model_fingerprint).label(
            "model_fingerprint"
        ),
    )
    .outerjoin_from(memories, next_embeddings, SERVING_BESIDE)
    .where(INDEXED)
)


def read_candidates(
    connection: Connection, ids: Sequence[MemoryId], *conditions: ColumnElement[bool]
) -> dict[MemoryId, Candidate]:
    """Return those of `ids` that are live, embedded, and meet the conditions."""
    return {
        MemoryId(row.id): Candidate(
            memory=memory_of(row), embedding=row.embedding, model_fingerprint=row.model_fingerprint
        )
        for row in connection.execute(_CANDIDATES.where(one_of(memories.c.id, ids), *conditions))
    }
