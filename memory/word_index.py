"""Which memories hold which words, and what stands around each of them in its conversation."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.conversation_order import around
from memory.errors import IndexRefused
from memory.handles import NOWHERE, column_of, handles_of
from memory.languages import DEFAULT_LANGUAGE
from memory.postings import COLUMNS, NO_DOC, Segment, joined, keys_of, space_of
from memory.word_matches import WordMatches
from memory.words import analyzer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from memory.postings import Docs, Flags, Ids, Text

_GROWTH = 4  # a segment is joined with the one before it, unless that is this many times as large


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that was worked out, and costs nothing any more."""

    segments: tuple[Segment, ...]
    n_memories: Counter[int]  # how many come or go, by namespace
    n_terms: Counter[int]  # with how many terms


class WordIndex:
    """The words of memories, in segments: each four times as large as the next one at least.

    A handle stands for a memory for as long as nothing changes: its segment's number and its doc there.

    `change` and whatever only reads may run beside each other; `take` must run alone.

    Args:
        language: of words in Latin script, one of `memory.languages.LANGUAGES`.

    """

    def __init__(self, language: str = DEFAULT_LANGUAGE) -> None:
        self.language = language
        self.analyzer = analyzer_of(language)
        self._segments: tuple[Segment, ...] = ()
        self._n_memories: Counter[int] = Counter()
        self._n_terms: Counter[int] = Counter()

    def __len__(self) -> int:
        return sum(segment.n_live for segment in self._segments)

    def change(self, *, removed: Sequence[int] | Ids, texts: Sequence[Text]) -> Change:
        """Work out a change: these ids go, and these texts come, instead of what their ids had before."""
        new = Segment.of(texts, self.analyzer)
        gone = np.union1d(np.asarray(removed, dtype=np.int64), new.ids)
        n_memories, n_terms = Counter[int](), Counter[int]()
        segments = []
        for segment in self._segments:
            docs = segment.find(gone)
            docs = docs[docs != NO_DOC]
            _count(n_memories, n_terms, segment, docs, -1)
            segments.append(segment.without(gone))
        if len(new):
            _count(n_memories, n_terms, new, np.arange(len(new)), 1)
            segments.append(new)
        return Change(segments=_tidied(segments), n_memories=n_memories, n_terms=n_terms)

    def take(self, change: Change) -> None:
        """Make a change that was worked out from the index as it is."""
        self._segments = change.segments
        for counts, more in ((self._n_memories, change.n_memories), (self._n_terms, change.n_terms)):
            for space, n in more.items():
                counts[space] += n
                if not counts[space]:
                    del counts[space]

    def compact(self) -> None:
        """Let go of the last trace of what is gone. As `take`, it must run alone."""
        self.analyzer.forget()
        self._segments = tuple(s.compacted() for s in self._segments if s.n_live)

    def ids(self) -> Ids:
        """Return the id of every memory whose words are here, ascending."""
        found = [segment.ids[segment.live] for segment in self._segments]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))

    def held_ids(self) -> Ids:
        """Return the same with those that are gone, but of whose words there is a trace left."""
        found = [segment.ids for segment in self._segments]
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found]))

    def handles(self, ids: Ids) -> Ids:
        """Return the handles of ids, in their order; NOWHERE for one that is not here."""
        handles = np.full(len(ids), NOWHERE, dtype=np.int64)
        for number, segment in enumerate(self._segments):
            docs = segment.find(ids)
            there = docs != NO_DOC
            handles[there] = handles_of(number, docs[there])
        return handles

    def ids_of(self, handles: Ids) -> Ids:
        """Return the ids of handles, in their order; NOWHERE for nothing."""
        ids: Ids = self._column(handles, lambda segment: segment.ids, nothing=np.int64(NOWHERE))
        return ids

    def lengths(self, handles: Ids) -> Docs:
        """Return how many terms each has; 0 for nothing."""
        lengths: Docs = self._column(handles, lambda segment: segment.lengths, nothing=np.int32(0))
        return lengths

    def are_questions(self, handles: Ids) -> Flags:
        """Return whether each ends with a question mark."""
        asks: Flags = self._column(handles, lambda segment: segment.asks, nothing=np.bool_(False))
        return asks

    def are_messages(self, handles: Ids) -> Flags:
        """Return whether each is a message of a conversation."""
        ranks = self._column(handles, lambda segment: segment.ranks, nothing=np.int32(NO_DOC))
        are: Flags = ranks != NO_DOC
        return are

    def around(self, handles: Ids, *, n: int) -> Ids:
        """Return what `memory.conversation_order.around` says: int64 (len(handles), 2n + 1)."""
        return around(self._segments, handles, n=n)

    def matches(self, terms: Sequence[int], *, namespace: str) -> WordMatches:
        """Return where these distinct terms stand in the texts of a namespace."""
        space = space_of(namespace)
        keys = keys_of(terms, space)
        by_segment = [segment.postings(keys) for segment in self._segments]
        postings = list(zip(*by_segment, strict=True)) if by_segment else [()] * len(keys)
        n = self._n_memories[space]
        return WordMatches(
            segments=self._segments,
            postings=postings,
            n_memories=n,
            mean_length=self._n_terms[space] / n if n else 0.0,
        )

    def names(self, terms: Sequence[int], *, namespace: str) -> list[Ids]:
        """Return for each of these terms the handles of all that has an author of that name, ascending."""
        keys = keys_of(terms, space_of(namespace), names=True)
        found: list[list[Ids]] = [[np.empty(0, dtype=np.int64)] for _ in keys]
        for number, segment in enumerate(self._segments):
            for of_term, (docs, _) in zip(found, segment.postings(keys), strict=True):
                of_term.append(handles_of(number, docs))
        return [np.concatenate(of_term) for of_term in found]

    def agree(self, texts: Sequence[Text]) -> Flags:
        """Return bool (n,): whether what is kept of each of these memories, all here, is that of its text."""
        expected = Segment.of(texts, self.analyzer)
        found = np.zeros(len(texts), dtype=np.uint64)
        for segment in self._segments:
            docs = segment.find(expected.ids)
            here = docs != NO_DOC
            found[here] = segment.fingerprints(docs[here])
        same: Flags = found == expected.fingerprints(np.arange(len(texts), dtype=np.int32))
        return same

    def save(self, path: Path) -> None:
        """Write everything to `path` (.npz), without a trace of what is gone."""
        columns = {
            f"{number}.{name}": getattr(segment, name)
            for number, segment in enumerate(s.compacted() for s in self._segments if s.n_live)
            for name in COLUMNS
        }
        with path.open("wb") as file:
            np.savez(file, **columns)

    @classmethod
    def load(cls, path: Path, *, language: str) -> WordIndex:
        """Read what `save` wrote, of this language.

        Raises:
            IndexRefused: it cannot be read.

        """
        index = cls(language)
        index._segments = tuple(Segment(**columns) for columns in _read(path, COLUMNS))
        for segment in index._segments:
            _count(index._n_memories, index._n_terms, segment, np.arange(len(segment)), 1)
        return index

    def _column(self, handles: Ids, column: Callable[[Segment], Any], *, nothing: Any) -> Any:
        return column_of(self._segments, handles, column, nothing=nothing)


def read_held_ids(path: Path) -> Ids:
    """Return the ids in a file that `WordIndex.save` wrote, ascending.

    Raises:
        IndexRefused: it cannot be read.

    """
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(c["ids"] for c in _read(path, ["ids"]))]))


def _read(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return these columns of each segment in a file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            n = sum(name.endswith(".ids") for name in file.files)
            return [{name: file[f"{number}.{name}"] for name in names} for number in range(n)]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        message = f"{path}: {error}"
        raise IndexRefused(message) from error


def _count(
    n_memories: Counter[int], n_terms: Counter[int], segment: Segment, docs: npt.NDArray[Any], change: int
) -> None:
    """Note that these docs of a segment come (1) or go (-1)."""
    spaces, at = np.unique(segment.spaces[docs], return_inverse=True)
    terms = np.bincount(at, weights=segment.lengths[docs], minlength=len(spaces))
    for space, n, length in zip(spaces.tolist(), np.bincount(at).tolist(), terms.tolist(), strict=True):
        n_memories[space] += change * n
        n_terms[space] += change * int(length)


def _tidied(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the same with the last ones joined until each is much larger than the next one."""
    tidy = [segment.compacted() if 2 * segment.n_live < len(segment) else segment for segment in segments]
    tidy = [segment for segment in tidy if len(segment)]
    while len(tidy) > 1 and tidy[-2].n_live < _GROWTH * tidy[-1].n_live:
        tidy[-2:] = [joined(tidy[-2], tidy[-1])]
    return tuple(tidy)
