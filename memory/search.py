"""A search: the query is embedded, the index answers, and the database has the last word."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from memory.errors import NotYetSearchable, ServerAway
from memory.models import Memory, MemoryId, SearchHit, SearchRequest
from memory.relations import neighbours
from memory.unit_vectors import usable_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from memory.index_replica import IndexReplica, Nearest
    from memory.models import MemoryType
    from memory.store.associations import Associations
    from memory.store.candidates import Candidate
    from memory.store.memories import MemoryStore

    Vector = npt.NDArray[np.float32]

_SPARE = 10  # candidates beyond what is asked for: some may be gone
_MOST_SPARE = 110
_LOOKED_THROUGH = 400  # candidates, after which those that are about as near as the last one are let be

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
        embed_query: Callable[[str], Vector],
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
        Up to `request.context` messages before and after each in its conversation are shown with it.

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
        return self._with_context(hits, n=request.context) if request.context else hits

    def _with_context(self, hits: Sequence[SearchHit], *, n: int) -> list[SearchHit]:
        """Return the hits with what was said around each; one that is gone since has nothing around it."""
        found = self._store.contexts([hit.memory.id for hit in hits], before=n, after=n)
        return [
            replace(hit, before=tuple(context.before), after=tuple(context.after))
            if (context := found.get(hit.memory.id))
            else hit
            for hit in hits
        ]

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
        query: Vector,
        hits: Sequence[SearchHit],
        *,
        limit: int,
    ) -> list[SearchHit]:
        found = neighbours(self._associations, [hit.memory.id for hit in hits], limit=limit)
        near = replica.scores(query, ids=[relation.memory_id for relation in found])
        live = {m.id: (m, score) for m, score in self._scored(replica, query, near)}
        there = [relation for relation in found if relation.memory_id in live]
        return [
            SearchHit(memory=live[r.memory_id][0], score=live[r.memory_id][1], rank=rank, relation=r)
            for rank, r in enumerate(there, start=len(hits) + 1)
        ]

    def _live_hits(
        self, replica: IndexReplica, query: Vector, request: SearchRequest
    ) -> list[tuple[Memory, float]]:
        """Return the best live memories with exact scores, by score, then id.

        The index may not know scores exactly: it is asked for more candidates, and for yet more while one
        that it did not give could still belong among the best, within reason.
        """
        k = request.limit + (
            _SPARE if replica.is_exact else min(max(_SPARE, request.limit // 2), _MOST_SPARE)
        )
        while True:
            found = replica.search(
                query,
                namespace=request.namespace,
                memory_types=request.memory_types,
                k=k,
                min_score=request.min_score,
            )
            scored = self._scored(
                replica, query, found, namespace=request.namespace, memory_types=request.memory_types
            )
            hits = [hit for hit in scored if hit[1] >= request.min_score][: request.limit]
            if len(found.hits) < k:
                return hits
            settled = len(hits) == request.limit and hits[-1][1] >= found.hits[-1][1] + found.slack
            if settled or (len(hits) == request.limit and k >= _LOOKED_THROUGH):
                return hits
            k *= 4

    def _scored(
        self,
        replica: IndexReplica,
        query: Vector,
        found: Nearest,
        *,
        namespace: str | None = None,
        memory_types: Sequence[MemoryType] | None = None,
    ) -> list[tuple[Memory, float]]:
        """Return those found that are live, with exact scores: by score, then id."""
        scores = dict(found.hits)
        if not found.slack:
            rows = self._store.live(list(scores), namespace=namespace, memory_types=memory_types)
            return [(rows[i], score) for i, score in found.hits if i in rows]
        live = self._store.candidates(list(scores), namespace=namespace, memory_types=memory_types)
        exact = _exact_scores(query, live, scores, model_fingerprint=replica.model_fingerprint)
        return sorted(((live[i].memory, exact[i]) for i in live), key=lambda hit: (-hit[1], hit[0].id))


def _exact_scores(
    query: Vector,
    live: Mapping[MemoryId, Candidate],
    scores: Mapping[MemoryId, float],
    *,
    model_fingerprint: str,
) -> dict[MemoryId, float]:
    """Return the cosine of the query and each live candidate, from its row: that of its nearest window.

    Where that is another model's by now, or damaged, the index's own score stands.
    """
    ours = [i for i, candidate in live.items() if candidate.model_fingerprint == model_fingerprint]
    is_good, vectors, counts = usable_vectors([live[i].embedding for i in ours], dim=len(query))
    # Not by a matrix product: there, equal embeddings may differ in the last digit.
    cosines = np.clip((vectors * query).sum(axis=1), -1, 1)
    if len(vectors) > len(counts):
        cosines = np.maximum.reduceat(cosines, np.cumsum(counts) - counts)
    good = [i for i, is_one in zip(ours, is_good.tolist(), strict=True) if is_one]
    return {i: scores[i] for i in live} | dict(zip(good, cosines.tolist(), strict=True))
