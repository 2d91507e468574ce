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
    from memory.word_matches import WordMatches

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


def ranked(content: Snapshot, query: Query, scope: Scope, *, mode: SearchMode, k: int) -> Scored:
    """Return the `k` most relevant of a scope, best first, ties by id."""
    looked_up = _look_up(content, query, namespace=scope.namespace, mode=mode)
    ids = _candidates(content, query, looked_up, scope, mode=mode, k=k)
    return _scored(content, query, looked_up, ids, mode=mode).best(k)


def scored(content: Snapshot, query: Query, ids: Ids, *, namespace: str, mode: SearchMode) -> Scored:
    """Return these memories of a namespace, all in the index, best first, ties by id."""
    looked_up = _look_up(content, query, namespace=namespace, mode=mode)
    return _scored(content, query, looked_up, ids, mode=mode)


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """Where a query's words are."""

    matches: WordMatches
    names: list[Ids]
    """the handles of what each author has said whom the query names"""


def _look_up(content: Snapshot, query: Query, *, namespace: str, mode: SearchMode) -> _LookedUp | None:
    """Look the words up as a mode needs them; a hybrid search looks for an author's name as that alone."""
    if mode is SearchMode.VECTOR:
        return None
    about, names = query.terms, []
    if mode is SearchMode.HYBRID:
        found = content.words.names(query.terms, namespace=namespace)
        names = [handles for handles in found if len(handles)]
        about = [term for term, handles in zip(query.terms, found, strict=True) if not len(handles)]
    return _LookedUp(content.words.matches(about or query.terms, namespace=namespace), names)


def _candidates(
    content: Snapshot, query: Query, looked_up: _LookedUp | None, scope: Scope, *, mode: SearchMode, k: int
) -> Ids:
    """Return the ids of a scope that may be among the `k` most relevant, ascending.

    These are all of it where it is small. Else the nearest ones, those that match the words best, and what
    stands around them; or with another mode than the hybrid one just those of that kind.
    """
    allowed = content.catalogue.choose(namespace=scope.namespace, memory_types=scope.memory_types)
    if scope.among is not None:
        there = content.catalogue.belong(
            scope.among, namespace=scope.namespace, memory_types=scope.memory_types
        )
        allowed = scope.among[there]
    if allowed is not None and len(allowed) <= _COMPARED:
        return allowed if isinstance(allowed, np.ndarray) else allowed.ids()
    if allowed is None and len(content.catalogue) <= _COMPARED:
        return content.catalogue.ids()
    n = max(_POOL, k)
    found = [np.empty(0, dtype=np.int64)]
    if mode is not SearchMode.WORDS:
        nearest, _ = content.index.nearest(query.vector, k=n, among=allowed)
        further = content.windows.search(
            query.vector, namespace=scope.namespace, memory_types=scope.memory_types, k=n, min_score=-2
        )
        found += [nearest, _narrowed(content, np.array([i for i, _ in further], dtype=np.int64), scope)]
    if looked_up is not None:
        found.append(_matching(content, looked_up.matches, scope, n=n))
    pool = np.unique(np.concatenate(found))
    if mode is not SearchMode.HYBRID:
        return pool
    around = np.delete(content.words.around(content.words.handles(pool), n=AROUND), AROUND, axis=1)
    neighbours = content.words.ids_of(np.unique(around[around != NOWHERE]))
    return np.union1d(pool, _narrowed(content, neighbours, scope)) if len(neighbours) else pool


def _matching(content: Snapshot, matches: WordMatches, scope: Scope, *, n: int) -> Ids:
    """Return the ids of the `n` of a scope that match the words best, or of all that match any.

    Of equal ones, which are many where much was said again and again, it is those with the lowest ids.
    """
    handles, scores = matches.scores()
    asked = n
    while True:
        least = np.partition(scores, -asked)[-asked] if asked < len(scores) else -math.inf
        above, equal = (
            np.sort(_narrowed(content, content.words.ids_of(handles[chosen]), scope))
            for chosen in (scores > least, scores == least)
        )
        if len(above) + len(equal) >= n or asked >= len(scores):
            return np.concatenate([above, equal[: max(0, n - len(above))]])
        asked *= 4


def _narrowed(content: Snapshot, ids: Ids, scope: Scope) -> Ids:
    """Return those of `ids`, all in the index and of the scope's namespace, that are in the scope."""
    if scope.memory_types is not None:
        there = content.catalogue.belong(ids, namespace=scope.namespace, memory_types=scope.memory_types)
        ids = ids[there]
    return ids if scope.among is None else np.intersect1d(ids, scope.among)


def _scored(
    content: Snapshot, query: Query, looked_up: _LookedUp | None, ids: Ids, *, mode: SearchMode
) -> Scored:
    if looked_up is None:
        return weighted(mode, ids, _cosines(content, query, ids)[:, None])
    handles = content.words.handles(ids)
    if mode is SearchMode.WORDS:
        matches = looked_up.matches
        counts, lengths = matches.counts(handles), content.words.lengths(handles).astype(np.float64)
        share = matches.bm25(counts, lengths) / max(matches.most, 1e-9)
        matching = share > 0
        return weighted(mode, ids[matching], share[matching, None])
    return weighted(mode, ids, _terms(content, query, looked_up, ids, handles))


def _terms(content: Snapshot, query: Query, looked_up: _LookedUp, ids: Ids, handles: Ids) -> Floats:
    """Return the terms of hybrid scores, float64 (n, 7), each 0..1."""
    words, matches = content.words, looked_up.matches
    around = words.around(handles, n=AROUND)
    there = around != NOWHERE
    every, places = np.unique(around, return_inverse=True)
    places = places.reshape(around.shape)
    cosines = np.maximum(_cosines(content, query, words.ids_of(every)), 0) * (every != NOWHERE)

    is_named = np.zeros(len(ids), dtype=bool)
    for of_one in looked_up.names:
        is_named |= np.isin(handles, of_one)
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
    there = content.catalogue.has(ids)
    cosines[there] = content.index.scores(query.vector, ids[there])
    further = dict(content.windows.scores(query.vector, ids=ids[there].tolist()))
    if further:
        cosines = np.maximum(cosines, [further.get(i, -1.0) for i in ids.tolist()])
    return cosines
