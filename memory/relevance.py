"""How relevant memories are to a query: by meaning, by words, and by what was said around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memory.handles import NOWHERE
from memory.models import SearchMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from memory.catalogue import Ids
    from memory.snapshot import Snapshot

    Floats = npt.NDArray[np.float64]
    Vector = npt.NDArray[np.float32]

WEIGHTS: Mapping[str, float] = {
    "meaning": 0.12,
    "meaning_around": 0.16,
    "words": 0.17,
    "words_around": 0.275,
    "author": 0.11,
    "length": 0.15,
    "statement": 0.015,
}
"""The terms of a hybrid score. They add up to 1; docs/search.md says what each is, and why so much."""

TERMS: Mapping[SearchMode, Mapping[str, float]] = {
    SearchMode.HYBRID: WEIGHTS,
    SearchMode.VECTOR: {"cosine": 1.0},
    SearchMode.WORDS: {"words": 1.0},
}
"""The terms of each mode's score, and their weights."""

AROUND = 2
"""So many messages before a message and behind it say something about it."""

_NEARNESS = np.array([0.5, 0.7, 1.0, 0.7, 0.5])  # how much each of them counts
_LONG = 100  # terms: a text of these is as telling as a longer one
_NEUTRAL = 0.6  # what is no message of a conversation is neither chatter nor a question
_POOL = 100  # candidates of either kind, at least
_COMPARED = 2000  # memories, up to which every one is a candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query as the index takes it."""

    vector: Vector
    """float32 (d,), length 1"""
    terms: list[int]
    """what `memory.words.Analyzer.query_terms` made of it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which memories may be found."""

    namespace: str
    memory_types: Iterable[str] | None = None
    among: Ids | None = None
    """only these ids, ascending"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Memories with the terms of their scores, best first, ties by id."""

    ids: Ids
    """int64 (n,)"""
    terms: Floats
    """float64 (n, t): in the order of the mode's `TERMS`"""
    scores: Floats
    """float64 (n,): the terms' weighted sum"""

    def best(self, k: int) -> Scored:
        """Return the first `k`."""
        return Scored(ids=self.ids[:k], terms=self.terms[:k], scores=self.scores[:k])


def weighted(mode: SearchMode, ids: Ids, terms: Floats) -> Scored:
    """Return memories by the weighted sum of their terms."""
    # Not by a matrix product: there, equal terms may differ in the last digit.
    scores = (terms * np.array(list(TERMS[mode].values()))).sum(axis=1)
    order = np.lexsort((ids, -scores))
    return Scored(ids=ids[order], terms=terms[order], scores=scores[order])


def candidates(content: Snapshot, query: Query, scope: Scope, *, mode: SearchMode, k: int) -> Ids:
    """Return the ids of a scope that may be among the `k` most relevant, ascending.

    These are all of it where it is small. Else the nearest ones, those that match the most words, and what
    stands around them; or with another mode than the hybrid one just those of that kind.
    """
    allowed = content.catalogue.choose(namespace=scope.namespace, memory_types=scope.memory_types)
    if scope.among is not None:
        kept = _within(content, scope.among, scope)
        if len(kept) <= _COMPARED:
            return kept
        allowed = kept
    if allowed is not None and len(allowed) <= _COMPARED:
        return allowed if isinstance(allowed, np.ndarray) else allowed.ids()
    if allowed is None and len(content.catalogue) <= _COMPARED:
        return content.catalogue.ids()
    n = max(_POOL, k)
    found = [np.empty(0, dtype=np.int64)]
    if mode is not SearchMode.WORDS:
        hits = content.index.search(query.vector, k=n, min_score=-2, among=allowed)
        further = content.windows.search(
            query.vector, namespace=scope.namespace, memory_types=scope.memory_types, k=n, min_score=-2
        )
        found.append(_within(content, np.array([i for i, _ in [*hits, *further]], dtype=np.int64), scope))
    if mode is not SearchMode.VECTOR:
        found.append(_matching(content, query, scope, n=n))
    pool = np.unique(np.concatenate(found))
    if mode is not SearchMode.HYBRID:
        return pool
    around = content.words.around(content.words.handles(pool), n=AROUND)
    neighbours = content.words.ids_of(np.unique(around[around != NOWHERE]))
    return np.union1d(pool, _within(content, neighbours, scope))


def score(content: Snapshot, query: Query, ids: Ids, *, namespace: str, mode: SearchMode) -> Scored:
    """Return these memories of a namespace, all in the index, by relevance."""
    if mode is SearchMode.VECTOR:
        return weighted(mode, ids, _cosines(content, query, ids)[:, None])
    handles = content.words.handles(ids)
    if mode is SearchMode.WORDS:
        matches = content.words.matches(query.terms, namespace=namespace)
        counts, lengths = matches.counts(handles), content.words.lengths(handles).astype(np.float64)
        share = matches.bm25(counts, lengths) / max(matches.most, 1e-9)
        matching = share > 0
        return weighted(mode, ids[matching], share[matching, None])
    return weighted(mode, ids, _terms(content, query, ids, handles, namespace=namespace))


def _terms(content: Snapshot, query: Query, ids: Ids, handles: Ids, *, namespace: str) -> Floats:
    """Return the terms of hybrid scores, float64 (n, 7), each 0..1."""
    words = content.words
    around = words.around(handles, n=AROUND)
    there = around != NOWHERE
    every, places = np.unique(around, return_inverse=True)
    places = places.reshape(around.shape)
    cosines = np.maximum(_cosines(content, query, words.ids_of(every)), 0) * (every != NOWHERE)

    names = words.names(query.terms, namespace=namespace)
    is_named = np.zeros(len(ids), dtype=bool)
    for of_term in names:
        is_named |= np.isin(handles, of_term)
    about = [t for t, of_term in zip(query.terms, names, strict=True) if not len(of_term)]
    matches = words.matches(about or query.terms, namespace=namespace)
    most = max(matches.most, 1e-9)
    counts, lengths = matches.counts(every), words.lengths(every).astype(np.float64)
    own = places[:, AROUND]
    n_around = np.maximum(there.sum(axis=1), 1)
    together = matches.bm25(counts[:, places].sum(axis=2), lengths[places].sum(axis=1), n_texts=n_around)
    nearness = _NEARNESS * there
    is_message = words.are_messages(handles)
    told = np.minimum(np.log1p(lengths[own]) / math.log1p(_LONG), 1)
    return np.stack(
        [
            cosines[own],
            (cosines[places] * nearness).sum(axis=1) / np.maximum(nearness.sum(axis=1), 1e-9),
            matches.bm25(counts[:, own], lengths[own]) / most,
            np.sqrt(together / most),
            is_named,
            np.where(is_message, told, _NEUTRAL),
            np.where(is_message, ~words.are_questions(handles), _NEUTRAL),
        ],
        axis=1,
    )


def _cosines(content: Snapshot, query: Query, ids: Ids) -> Floats:
    """Return float64 (n,): the cosine of each one's nearest window; 0 for what has no vector yet."""
    cosines = np.zeros(len(ids))
    present = content.catalogue.present(ids[ids >= 0])
    there = np.isin(ids, present)
    cosines[there] = content.index.scores(query.vector, ids[there])
    further = dict(content.windows.scores(query.vector, ids=present.tolist()))
    if further:
        cosines = np.maximum(cosines, [further.get(i, -1.0) for i in ids.tolist()])
    return cosines


def _matching(content: Snapshot, query: Query, scope: Scope, *, n: int) -> Ids:
    """Return the ids of the `n` of a scope that match the most words, or of all that match any."""
    matches = content.words.matches(query.terms, namespace=scope.namespace)
    asked = n
    while True:
        found = matches.best(asked)
        kept = _within(content, content.words.ids_of(found), scope)
        if len(kept) >= n or len(found) < asked:
            return kept
        asked *= 4


def _within(content: Snapshot, ids: Ids, scope: Scope) -> Ids:
    """Return those of `ids` that are in the index and in a scope."""
    kept = ids[content.catalogue.belong(ids, namespace=scope.namespace, memory_types=scope.memory_types)]
    return kept if scope.among is None else np.intersect1d(kept, scope.among)
