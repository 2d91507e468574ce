"""What lies in the database: the vectors as they were stored, and an exact search over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

from benchmarks.rig.waiting import Progress
from memory.database import Database
from memory.schema import index_clock, memories

_PAGE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVectors:
    """Vectors of live memories: float32 (n, d), with uid, namespace and type of each row."""

    uids: Any
    namespaces: Any
    types: Any
    vectors: Any

    def chosen(self, *, namespace: str, memory_type: str | None = None) -> Any:
        """Return the places of this namespace, and of this type where one is named. int64 (m,)."""
        wanted = self.namespaces == namespace
        if memory_type is not None:
            wanted &= self.types == memory_type
        return np.flatnonzero(wanted)

    def nearest(self, queries: Any, places: Any, *, k: int) -> list[list[str]]:
        """Return the uids of the `k` nearest of `places` for each query, float32 (q, d), best first."""
        best_scores = np.full((len(queries), 0), -2, dtype=np.float32)
        best_places = np.empty((len(queries), 0), dtype=np.int64)
        for start in range(0, len(places), _PAGE):
            block = places[start : start + _PAGE]
            scores = np.hstack([best_scores, queries @ self.vectors[block].T])
            all_places = np.hstack([best_places, np.broadcast_to(block, (len(queries), len(block)))])
            order = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
            best_scores = np.take_along_axis(scores, order, axis=1)
            best_places = np.take_along_axis(all_places, order, axis=1)
        order = np.argsort(-best_scores, axis=1, kind="stable")
        return [[str(self.uids[p]) for p in row] for row in np.take_along_axis(best_places, order, axis=1)]


def read_vectors(database_url: str, namespaces: Sequence[str], *, n: int) -> StoredVectors:
    """Read the vectors of these namespaces, about `n`, page by page: of each memory its first."""
    database, progress = Database(database_url), Progress("stored vectors read", total=n)
    columns = (memories.c.id, memories.c.uid, memories.c.namespace, memories.c.type, memories.c.embedding)
    wanted = memories.c.namespace.in_(namespaces) & memories.c.deleted_at.is_(None)
    uids, names, types, blocks, last = [], [], [], [], 0
    try:
        with database.read() as connection:
            dim = connection.scalar(select(index_clock.c.model_dim)) or 0
        while True:
            page = select(*columns).where(wanted, memories.c.id > last).order_by(memories.c.id).limit(_PAGE)
            with database.read() as connection:
                rows = connection.execute(page).all()
            if not rows:
                break
            last = rows[-1].id
            uids += [row.uid for row in rows]
            names += [row.namespace for row in rows]
            types += [row.type for row in rows]
            joined = b"".join(row.embedding[: 4 * dim] for row in rows)
            blocks.append(np.frombuffer(joined, dtype="<f4").reshape(len(rows), dim))
            progress.at(len(uids))
    finally:
        database.close()
    return StoredVectors(
        uids=np.array(uids), namespaces=np.array(names), types=np.array(types), vectors=np.concatenate(blocks)
    )


def overlap(found: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> float:
    """Return the share of the right ones that was found, over all queries, 0..1."""
    n_right = sum(len(r) for r in right)
    return sum(len({*f} & {*r}) for f, r in zip(found, right, strict=True)) / n_right
