"""A search: the query is embedded, the index answers, and the database has the last word."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from memory.boosts import boosted
from memory.diversity import diverse
from memory.duplicates import first_of_each
from memory.errors import NotYetSearchable, ServerAway
from memory.models import MemoryId, ScoreTerm, SearchHit, SearchMode
from memory.paging import Cursor
from memory.prompt_text import fitting
from memory.relations import neighbours
from memory.relevance import TERMS, Scope, weighted
from memory.reranker import RERANKED
from memory.unit_vectors import usable_vectors
from memory.validation import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt
    from sqlalchemy import ColumnElement

    from memory.index_replica import IndexReplica
    from memory.relevance import Query, Scored
    from memory.reranker import Reranker
    from memory.search_request import SearchRequest
    from memory.store.associations import Associations
    from memory.store.candidates import Candidate
    from memory.store.memories import MemoryStore

    Vector = npt.NDArray[np.float32]

_SPARE = 10  # candidates beyond what is asked for: some may be gone
_MOST_SPARE = 110
_LOOKED_THROUGH = 400  # candidates, after which those that are about as near as the last one are let be
_MOST_ALIKE = 20_000  # candidates, after which memories that say the same are not made up for
_TO_CHOOSE_FROM = 4  # times what is asked for, where the results are to be unlike each other
_FEWEST_TO_CHOOSE_FROM = 50

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
        reranker: Reranker,
    ) -> None:
        self._replica = replica
        self._store = store
        self._associations = associations
        self._embed_query = embed_query
        self._reranker = reranker
        self._recalled: set[MemoryId] = set()
        self._recalled_lock = threading.Lock()

    def search(self, request: SearchRequest, *, wait_s: float) -> list[SearchHit]:
        """Return up to `request.limit` live memories, best first, of this namespace and these types.

        If so many memories match, so many come back: the filters narrow what the index looks through, and
        hits whose row is gone meanwhile are made up for. Behind them come up to `request.expand` memories
        that are associated with a hit, the strongest association first, each with its `relation` and
        whatever else was asked for. Up to `request.context` messages before and after each in its
        conversation are shown with it.

        Args:
            request: what is looked for.
            wait_s: how long to wait for the write that `request.min_seq` names.

        Raises:
            NotYetSearchable: that write was not applied in time.
            NoReranker: `request.rerank` is set, and there is none.
            ServerAway: the database cannot be reached.

        """
        replica = self._replica()
        if request.min_seq is not None and not replica.wait_until(request.min_seq, timeout_s=wait_s):
            raise NotYetSearchable(f"write {request.min_seq} is not searchable yet")
        query = replica.query(request.query, self._vector(request))
        hits = self._hits(replica, query, request)
        if request.expand:
            hits += self._neighbours(replica, query, hits, request)
        if request.context:
            hits = self._with_context(hits, n=request.context)
        if request.max_tokens is not None:
            hits = fitting(hits, max_tokens=request.max_tokens)
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

    def _vector(self, request: SearchRequest) -> Vector:
        """Return the query's embedding; what goes by words alone needs none."""
        if request.mode is SearchMode.WORDS:
            return np.zeros(0, dtype=np.float32)
        return self._embed_query(request.query)

    def _hits(self, replica: IndexReplica, query: Query, request: SearchRequest) -> list[SearchHit]:
        """Return the best of a page: found, then read again by the reranker, then unlike each other."""
        if request.rerank or request.diversity:
            found = self._ranked(replica, query, request, n=_n_to_choose_from(request))
            if request.rerank:
                found = self._reranked(found, request)
            if request.diversity:
                found = self._unlike(found, request, dim=replica.content.index.dim)
            return [replace(hit, rank=n) for n, hit in enumerate(found[: request.limit], start=1)]
        hits, digest = [], request.digest
        first = request.after.rank + 1 if request.after else 1
        for rank, hit in enumerate(self._ranked(replica, query, request, n=request.limit), start=first):
            cursor = Cursor(
                score=hit.score, memory_id=hit.memory.id, rank=rank, digest=digest, now=request.boosts.now
            )
            hits.append(replace(hit, rank=rank, cursor=str(cursor)))
        return hits

    def _ranked(
        self, replica: IndexReplica, query: Query, request: SearchRequest, *, n: int
    ) -> list[SearchHit]:
        """Return the `n` best live memories that meet all conditions, by score, then id.

        The index may not know cosines exactly, knows nothing of boosts, and little of filters: it is asked
        for more candidates, and for yet more while one that it did not give could still belong among the
        best, within reason. Where a filter leaves too few of them, the database says which there are.
        """
        slack, after = _slack(replica, request.mode), request.after
        scope = Scope(namespace=request.namespace, memory_types=request.memory_types)
        conditions = self._store.conditions(request.namespace, request.memory_types, request.where)
        k = n + (min(max(_SPARE, n // 2), _MOST_SPARE) if slack else _SPARE) + (after.rank if after else 0)
        while True:
            scored = replica.search(query, scope, mode=request.mode, k=k)
            live = self._live(replica, query, scored, request, *conditions)
            hits = [hit for hit in live if hit.score >= request.min_score]
            if request.distinct:
                hits = list(first_of_each(hits))
            if after:
                hits = [hit for hit in hits if after.is_before(hit.score, hit.memory.id)]
            best = hits[:n]
            if len(scored.ids) < k or scored.scores[-1] + slack < request.min_score:
                return best
            if len(best) == n:
                if best[-1].score >= scored.scores[-1] + slack or k >= _LOOKED_THROUGH:
                    return best
            elif len(live) >= n and k >= _MOST_ALIKE:
                return best
            if request.where and scope.among is None:
                ids = self._store.ids_that(request.namespace, request.memory_types, request.where)
                scope = replace(scope, among=ids)
            else:
                k *= 4

    def _live(
        self,
        replica: IndexReplica,
        query: Query,
        scored: Scored,
        request: SearchRequest,
        *conditions: ColumnElement[bool],
    ) -> list[SearchHit]:
        """Return those that are live and meet the conditions, with boosts; best first."""
        mode, ids = request.mode, [MemoryId(i) for i in scored.ids.tolist()]
        if _slack(replica, mode):
            live = self._store.candidates(ids, *conditions)
            rows = {i: candidate.memory for i, candidate in live.items()}
            scored = _with_exact_cosines(query, live, scored, replica.model_fingerprint)
        else:
            rows = self._store.live(ids, *conditions)
        hits = []
        for i, values, score in zip(
            scored.ids.tolist(), scored.terms.tolist(), scored.scores.tolist(), strict=True
        ):
            memory = rows.get(MemoryId(i))
            if memory is None:
                continue
            boosts = request.boosts.terms(memory)
            terms = {}
            if request.explain:
                weights = TERMS[mode].items()
                terms = {name: ScoreTerm(v, w) for (name, w), v in zip(weights, values, strict=True)}
            hits.append(
                SearchHit(
                    memory=memory,
                    score=boosted(score, boosts),
                    rank=0,
                    terms=terms,
                    boosts=boosts if request.explain else {},
                )
            )
        return _sorted(hits)

    def _reranked(self, hits: Sequence[SearchHit], request: SearchRequest) -> list[SearchHit]:
        """Return the first ones with the reranker's score, best first."""
        read, begin = hits[:RERANKED], time.perf_counter()
        scores = self._reranker.scores(request.query, [hit.memory.content for hit in read])
        took_ms = round(1000 * (time.perf_counter() - begin), 1)
        return _sorted(
            replace(hit, score=score, rerank_ms=took_ms)
            for hit, score in zip(read, scores.tolist(), strict=True)
        )

    def _unlike(self, hits: Sequence[SearchHit], request: SearchRequest, *, dim: int) -> list[SearchHit]:
        """Return as many as are asked for, each unlike those before it."""
        live = self._store.candidates([hit.memory.id for hit in hits])
        hits = [hit for hit in hits if hit.memory.id in live]
        if not hits:
            return []
        vectors = _first_vectors([live[hit.memory.id] for hit in hits], dim=dim)
        scores = np.array([hit.score for hit in hits])
        return [hits[i] for i in diverse(scores, vectors, k=request.limit, diversity=request.diversity)]

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

    def _with_context(self, hits: Sequence[SearchHit], *, n: int) -> list[SearchHit]:
        """Return the hits with what was said around each; one that is gone since has nothing around it."""
        found = self._store.contexts([hit.memory.id for hit in hits], before=n, after=n)
        return [
            replace(hit, before=tuple(context.before), after=tuple(context.after))
            if (context := found.get(hit.memory.id))
            else hit
            for hit in hits
        ]


def _slack(replica: IndexReplica, mode: SearchMode) -> float:
    """Return how far scores may be off that are then made exact: those that are cosines alone."""
    return replica.slack if mode is SearchMode.VECTOR else 0.0


def _n_to_choose_from(request: SearchRequest) -> int:
    n = RERANKED if request.rerank else request.limit
    if request.diversity:
        n = max(n, _FEWEST_TO_CHOOSE_FROM, min(_TO_CHOOSE_FROM * request.limit, MAX_LIMIT))
    return n


def _sorted(hits: Iterable[SearchHit]) -> list[SearchHit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.memory.id))


def _first_vectors(candidates: Sequence[Candidate], *, dim: int) -> npt.NDArray[np.float32]:
    """Return float32 (n, d): the vector of each one's first window; zeros where it cannot be used."""
    is_good, vectors, counts = usable_vectors([c.embedding for c in candidates], dim=dim)
    found = np.zeros((len(candidates), dim), dtype=np.float32)
    found[is_good] = vectors[np.cumsum(counts) - counts]
    return found


def _with_exact_cosines(
    query: Query,
    live: Mapping[MemoryId, Candidate],
    scored: Scored,
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
    own = [
        exact.get(MemoryId(i), s) for i, s in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True)
    ]
    return weighted(SearchMode.VECTOR, scored.ids, np.array(own).reshape(-1, 1))
