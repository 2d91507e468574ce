"""A search: the query is embedded, the index answers, and the database has the last word."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from memory.errors import NotYetSearchable, ServerAway
from memory.models import Memory, MemoryId, SearchHit, SearchRequest
from memory.relations import neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from memory.index_replica import IndexReplica
    from memory.store.associations import Associations
    from memory.store.memories import MemoryStore

RECALL_NOTED_EVERY = timedelta(hours=1)
"""`last_access_at` is written at most this often for each memory."""


class Searcher:
    """Answers searches over one replica of the index. Safe to call from several threads."""

    def __init__(
        self,
        *,
        replica: Callable[[], IndexReplica],
        store: MemoryStore,
        associations: Associations,
        embed_query: Callable[[str], npt.NDArray[np.float32]],
    ) -> None:
        self._replica = replica
        self._store = store
        self._associations = associations
        self._embed_query = embed_query
        self._recalled: set[MemoryId] = set()
        self._recalled_lock = threading.Lock()

    def search(self, request: SearchRequest, *, wait_s: float) -> list[SearchHit]:
        """Return up to `request.limit` live memories, best first, of this namespace and these types.

        If so many memories match, so many come back: the filter works inside the index, and hits whose
        row is gone meanwhile are made up for. Behind them come up to `request.expand` memories that are
        associated with a hit, the strongest association first, each with its `relation` and whatever type.

        Args:
            request: what is looked for.
            wait_s: how long to wait for the write that `request.min_seq` names.

        Raises:
            NotYetSearchable: that write was not applied in time.
            ServerAway: the database cannot be reached.

        """
        replica = self._replica()
        if request.min_seq is not None and not replica.wait_until(request.min_seq, timeout_s=wait_s):
            message = f"write {request.min_seq} is not searchable yet: the index is at {replica.applied_seq}"
            raise NotYetSearchable(message)
        query = self._embed_query(request.query)
        live = self._live_hits(replica, query, request)
        hits = [SearchHit(memory=m, score=score, rank=n) for n, (m, score) in enumerate(live, start=1)]
        if request.expand:
            hits += self._neighbours(replica, query, hits, limit=request.expand)
        self._remember_recalls(hits)
        return hits

    def note_recalls(self) -> None:
        """Write down which memories were found since the last call: off the path of a search.

        Raises:
            ServerAway: the database cannot be reached; the next call writes them down.

        """
        with self._recalled_lock:
            recalled, self._recalled = self._recalled, set()
        if not recalled:
            return
        try:
            self._store.touch(sorted(recalled), not_since=RECALL_NOTED_EVERY)
        except ServerAway:
            with self._recalled_lock:
                self._recalled |= recalled
            raise

    def _remember_recalls(self, hits: Sequence[SearchHit]) -> None:
        """Keep for `note_recalls` what was not noted lately, as far as this clock can tell."""
        lately = datetime.now(UTC) - RECALL_NOTED_EVERY
        with self._recalled_lock:
            self._recalled.update(
                hit.memory.id
                for hit in hits
                if hit.memory.last_access_at is None or hit.memory.last_access_at < lately
            )

    def _neighbours(
        self,
        replica: IndexReplica,
        query: npt.NDArray[np.float32],
        hits: Sequence[SearchHit],
        *,
        limit: int,
    ) -> list[SearchHit]:
        found = neighbours(self._associations, [hit.memory.id for hit in hits], limit=limit)
        ids = [relation.memory_id for relation in found]
        live, scores = self._store.live(ids), replica.scores(query, ids=ids)
        there = [
            relation for relation in found if relation.memory_id in live and relation.memory_id in scores
        ]
        return [
            SearchHit(memory=live[r.memory_id], score=scores[r.memory_id], rank=rank, relation=r)
            for rank, r in enumerate(there, start=len(hits) + 1)
        ]

    def _live_hits(
        self, replica: IndexReplica, query: npt.NDArray[np.float32], request: SearchRequest
    ) -> list[tuple[Memory, float]]:
        k = request.limit + 10
        while True:
            found = replica.search(
                query,
                namespace=request.namespace,
                memory_types=request.memory_types,
                k=k,
                min_score=request.min_score,
            )
            live = self._store.live(
                [i for i, _ in found], namespace=request.namespace, memory_types=request.memory_types
            )
            hits = [(live[i], score) for i, score in found if i in live]
            if len(hits) >= request.limit or len(found) < k:
                return hits[: request.limit]
            k *= 4
