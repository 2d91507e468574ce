"""A search: the query is embedded, the index answers, and the database has the last word."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from memory.errors import NotYetSearchable, ServerAway
from memory.models import MemoryId, ScoreTerm, SearchHit, SearchMode
from memory.relations import neighbours
from memory.relevance import TERMS, Scope, weighted
from memory.store.rows import chosen
from memory.unit_vectors import usable_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from sqlalchemy import ColumnElement

    from memory.index_replica import IndexReplica
    from memory.relevance import Query, Scored
    from memory.search_request import SearchRequest
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
        query = replica.query(request.query, self._vector(request))
        hits = self._hits(replica, query, request)
        if request.expand:
            hits += self._neighbours(replica, query, hits, request)
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

    def _vector(self, request: SearchRequest) -> Vector:
        """Return the query's embedding; what goes by words alone needs none."""
        if request.mode is SearchMode.WORDS:
            return np.zeros(0, dtype=np.float32)
        return self._embed_query(request.query)

    def _neighbours(
        self, replica: IndexReplica, query: Query, hits: Sequence[SearchHit], request: SearchRequest
    ) -> list[SearchHit]:
        found = neighbours(self._associations, [hit.memory.id for hit in hits], limit=request.expand)
        scored = replica.scored(
            query,
            namespace=request.namespace,
            ids=[relation.memory_id for relation in found],
            mode=request.mode,
        )
        live = {hit.memory.id: hit for hit in self._live(replica, query, scored, request)}
        there = [relation for relation in found if relation.memory_id in live]
        return [
            replace(live[relation.memory_id], rank=rank, relation=relation)
            for rank, relation in enumerate(there, start=len(hits) + 1)
        ]

    def _hits(self, replica: IndexReplica, query: Query, request: SearchRequest) -> list[SearchHit]:
        """Return the best live memories, by score, then id.

        The index may not know cosines exactly: it is asked for more candidates, and for yet more while one
        that it did not give could still belong among the best, within reason.
        """
        slack = replica.slack
        scope = Scope(namespace=request.namespace, memory_types=request.memory_types)
        conditions = chosen(request.namespace, request.memory_types)
        k = request.limit + (min(max(_SPARE, request.limit // 2), _MOST_SPARE) if slack else _SPARE)
        while True:
            scored = replica.search(query, scope, mode=request.mode, k=k)
            live = self._live(replica, query, scored, request, *conditions)
            hits = [hit for hit in live if hit.score >= request.min_score][: request.limit]
            if len(scored.ids) < k or scored.scores[-1] + slack < request.min_score:
                break
            settled = len(hits) == request.limit and hits[-1].score >= scored.scores[-1] + slack
            if settled or (len(hits) == request.limit and k >= _LOOKED_THROUGH):
                break
            k *= 4
        return [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]

    def _live(
        self,
        replica: IndexReplica,
        query: Query,
        scored: Scored,
        request: SearchRequest,
        *conditions: ColumnElement[bool],
    ) -> list[SearchHit]:
        """Return those that are live and meet the conditions, with exact cosines: by score, then id."""
        mode, ids = request.mode, [MemoryId(i) for i in scored.ids.tolist()]
        if mode is SearchMode.WORDS or not replica.slack:
            rows = self._store.live(ids, *conditions)
        else:
            live = self._store.candidates(ids, *conditions)
            rows = {i: candidate.memory for i, candidate in live.items()}
            scored = _with_exact_cosines(query, live, scored, mode, replica.model_fingerprint)
        weights = TERMS[mode]
        return [
            SearchHit(
                memory=rows[MemoryId(i)],
                score=score,
                rank=0,
                terms={
                    name: ScoreTerm(value, weight)
                    for (name, weight), value in zip(weights.items(), terms, strict=True)
                }
                if request.explain
                else {},
            )
            for i, terms, score in zip(
                scored.ids.tolist(), scored.terms.tolist(), scored.scores.tolist(), strict=True
            )
            if MemoryId(i) in rows
        ]


def _with_exact_cosines(
    query: Query,
    live: Mapping[MemoryId, Candidate],
    scored: Scored,
    mode: SearchMode,
    model_fingerprint: str,
) -> Scored:
    """Return the same with the cosine of the query and each live memory from its row: of its nearest window.

    Where that is another model's by now, or damaged, the index's own stands.
    """
    ours = [i for i, candidate in live.items() if candidate.model_fingerprint == model_fingerprint]
    is_good, vectors, counts = usable_vectors([live[i].embedding for i in ours], dim=len(query.vector))
    # Not by a matrix product: there, equal embeddings may differ in the last digit.
    cosines = np.clip((vectors * query.vector).sum(axis=1), -1, 1)
    if len(vectors) > len(counts):
        cosines = np.maximum.reduceat(cosines, np.cumsum(counts) - counts)
    good = [i for i, is_one in zip(ours, is_good.tolist(), strict=True) if is_one]
    exact = dict(zip(good, cosines.tolist(), strict=True))
    terms = scored.terms.copy()
    own = [exact.get(MemoryId(i), known) for i, known in zip(scored.ids.tolist(), terms[:, 0], strict=True)]
    terms[:, 0] = own if mode is SearchMode.VECTOR else np.maximum(own, 0)
    return weighted(mode, scored.ids, terms)
