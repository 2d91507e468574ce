"""Where the terms of one query stand, and how well each memory matches them by BM25."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from memory.handles import are_in, docs_of, handles_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from memory.postings import Docs, Ids, Segment

    Counts = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float64]

K1 = 1.2
"""Of BM25: the lower, the sooner more of the same word counts no more."""

B = 0.75
"""Of BM25: how far a long text is held against it, 0..1."""


@dataclass(frozen=True, kw_only=True)
class WordMatches:
    """The postings of t terms in one namespace.

    BM25 (Robertson, as of Lucene): the sum over the terms of idf · f (k1 + 1) / (f + k1 (1 - b + b l / L)),
    with f the term's count in the text, l the text's length and L the namespace's mean one in terms, and
    idf = ln(1 + (N - d + .5) / (d + .5)), where d of the namespace's N memories have the term.
    """

    segments: Sequence[Segment]
    postings: Sequence[Sequence[tuple[Docs, Counts]]]
    """for each term, for each segment"""
    n_memories: int
    mean_length: float

    @cached_property
    def idf(self) -> Floats:
        """float64 (t,)."""
        there = np.array([sum(len(docs) for docs, _ in found) for found in self.postings], dtype=np.float64)
        found: Floats = np.log1p((self.n_memories - there + 0.5) / (there + 0.5))
        return found

    @property
    def most(self) -> float:
        """What no memory's BM25 reaches: that of endless repetition; 0 where the query has no term."""
        return float(self.idf.sum() * (K1 + 1))

    def counts(self, handles: Ids) -> Floats:
        """Return float64 (t, len(handles)): how often each term is in each text; 0 for NOWHERE."""
        found = np.zeros((len(self.postings), len(handles)))
        for number in range(len(self.segments)):
            here = np.flatnonzero(are_in(handles, number))
            docs = docs_of(handles[here]).astype(np.int32)  # else a search casts what it looks through
            for term, of_segments in enumerate(self.postings):
                theirs, counts = of_segments[number]
                if len(theirs) and len(docs):
                    at = np.minimum(np.searchsorted(theirs, docs), len(theirs) - 1)
                    found[term, here] = np.where(theirs[at] == docs, counts[at], 0)
        return found

    def bm25(self, counts: Floats, lengths: Floats, *, n_texts: Floats | float = 1.0) -> Floats:
        """Return float64 (n,): BM25 of texts with these counts, (t, n), and these lengths, (n,).

        Each may be of several texts taken together: then its length is compared with that of `n_texts`.
        """
        held = K1 * (1 - B + B * lengths / (n_texts * max(self.mean_length, 1.0)))
        # Not by a matrix product: there, equal texts may differ in the last digit.
        found: Floats = (self.idf[:, None] * (counts * (K1 + 1) / (counts + held))).sum(axis=0)
        return found

    def scores(self) -> tuple[Ids, Floats]:
        """Return the handles of all that have any of the terms, in no order, and the BM25 of each."""
        found = [self._scores(number) for number in range(len(self.segments))]
        handles = np.concatenate([np.empty(0, dtype=np.int64), *(handles for handles, _ in found)])
        return handles, np.concatenate([np.empty(0), *(scores for _, scores in found)])

    def _scores(self, number: int) -> tuple[Ids, Floats]:
        """Return the handles and the BM25 of all in a segment that have any of the terms."""
        lengths = self.segments[number].lengths
        found: list[Docs] = [np.empty(0, dtype=np.int32)]
        shares: list[Floats] = [np.empty(0)]
        for idf, of_segments in zip(self.idf.tolist(), self.postings, strict=True):
            docs, counts = of_segments[number]
            held = K1 * (1 - B + B * lengths[docs] / max(self.mean_length, 1.0))
            found.append(docs)
            shares.append(idf * (K1 + 1) * counts / (counts + held))
        every = np.concatenate(found)
        if not len(every):
            return handles_of(number, every), np.empty(0)
        # A few ascending runs, which a stable sort merges: a column of the whole segment takes three times
        # as long, most of it for fresh memory.
        order = np.argsort(every, kind="stable")
        every = every[order]
        begins = np.flatnonzero(np.append(True, every[1:] != every[:-1]))
        return handles_of(number, every[begins]), np.add.reduceat(np.concatenate(shares)[order], begins)
