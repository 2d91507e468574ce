"""A part of the word index: where each term stands in some memories, and in which order these were said."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from memory.words import Analyzer

    Ids = npt.NDArray[np.int64]
    Docs = npt.NDArray[np.int32]
    Hashes = npt.NDArray[np.uint64]
    Flags = npt.NDArray[np.bool_]

NO_DOC = -1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_COUNTED = 255  # of one term in one text
_AT_ONCE = 1_000_000  # postings that are moved together
_QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u055e", "\u037e")  # also Chinese, Arabic, Armenian, Greek

# A message's place among all: big-endian and without signs, so that comparing bytes compares places.
_PLACE = np.dtype([("conversation", ">u8"), ("at", ">u8"), ("position", ">u4"), ("id", ">u8")])
_PLACE_BYTES = np.dtype(f"S{_PLACE.itemsize}")


class Text(NamedTuple):
    """What the word index needs of one memory. As a tuple, since a rebuild reads a million of them."""

    memory_id: int
    namespace: str
    content: str
    author: str | None
    source: str
    position: int | None  # in the conversation that its source names
    created_at: datetime  # aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The words of n memories. Nothing in it ever changes: any number of threads may read it.

    Inside, a memory is a doc: its number here. Terms of different namespaces are different keys, so
    nothing of one namespace can be told from another one's.
    """

    ids: Ids
    """int64 (n,)"""
    by_id: Docs
    """int32 (n,): the docs in the order of their ids"""
    spaces: Hashes
    """uint64 (n,): each one's namespace, hashed"""
    lengths: Docs
    """int32 (n,): terms"""
    asks: Flags
    """bool (n,): whether it ends with a question mark"""
    live: Flags
    """bool (n,): not gone since"""
    keys: Hashes
    """uint64 (m,), ascending: a term in a namespace, or in the names of its authors"""
    starts: Ids
    """int64 (m + 1,): the postings of key i are those from starts[i] to starts[i + 1]"""
    docs: Docs
    """int32 (p,): ascending for each key"""
    counts: npt.NDArray[np.uint8]
    """uint8 (p,): how often the term is there, at most 255"""
    places: npt.NDArray[np.bytes_]
    """bytes (q,), ascending: of the live messages of conversations"""
    placed: Docs
    """int32 (q,): the docs in that order"""
    ranks: Docs
    """int32 (n,): where a doc is in that order, -1 for none"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_live(self) -> int:
        """How many are not gone."""
        return int(np.count_nonzero(self.live))

    def find(self, ids: Ids) -> Docs:
        """Return the live docs of these ids, -1 for one that is not here."""
        if not len(self):
            return np.full(len(ids), NO_DOC, dtype=np.int32)
        at = np.minimum(np.searchsorted(self.ids, ids, sorter=self.by_id), len(self) - 1)
        docs = self.by_id[at]
        return np.where((self.ids[docs] == ids) & self.live[docs], docs, np.int32(NO_DOC))

    def postings(self, keys: Hashes) -> list[tuple[Docs, npt.NDArray[np.uint8]]]:
        """Return for each of these keys the live docs that have it, ascending, and how often each."""
        return [
            self._postings(key, at) for key, at in zip(keys, np.searchsorted(self.keys, keys), strict=True)
        ]

    def _postings(self, key: np.uint64, at: np.int64) -> tuple[Docs, npt.NDArray[np.uint8]]:
        if at == len(self.keys) or self.keys[at] != key:
            return self.docs[:0], self.counts[:0]
        part = slice(self.starts[at], self.starts[at + 1])
        docs, counts = self.docs[part], self.counts[part]
        there = self.live[docs]
        return (docs, counts) if there.all() else (docs[there], counts[there])

    def fingerprints(self, docs: Docs) -> Hashes:
        """Return uint64 (len(docs),): a hash of all that is kept of each of these distinct docs."""
        number_of = np.full(len(self), NO_DOC, dtype=np.int64)
        number_of[docs] = np.arange(len(docs))
        at = np.flatnonzero(number_of[self.docs] != NO_DOC)
        keys = self.keys[np.searchsorted(self.starts, at, side="right") - 1]
        found = _mixed(self.spaces[docs] ^ _mixed(2 * self.lengths[docs].astype(np.uint64) + self.asks[docs]))
        np.add.at(found, number_of[self.docs[at]], _mixed(keys ^ _mixed(self.counts[at].astype(np.uint64))))
        ranks = self.ranks[docs]
        places = self.places[ranks[ranks != NO_DOC]].view(_PLACE)
        mixed = np.zeros(len(places), dtype=np.uint64)
        for part in ("conversation", "at", "position"):
            mixed = _mixed(places[part].astype(np.uint64) ^ mixed)
        found[ranks != NO_DOC] += mixed
        return found

    def without(self, ids: Ids) -> Segment:
        """Return the same without these memories; their postings go with the next `compacted`."""
        gone = self.find(ids)
        gone = gone[gone != NO_DOC]
        if not len(gone):
            return self
        live = self.live.copy()
        live[gone] = False
        return replace(self, live=live, **_order(self.places, self.placed, live))

    def compacted(self) -> Segment:
        """Return the same without a trace of what is gone."""
        if self.live.all():
            return self
        kept = np.flatnonzero(self.live)
        numbers = np.full(len(self), NO_DOC, dtype=np.int32)
        numbers[kept] = np.arange(len(kept), dtype=np.int32)
        there = self.live[self.docs]
        before = np.append(0, np.cumsum(there))[self.starts]
        has_any = np.diff(before) > 0
        return Segment(
            ids=self.ids[kept],
            by_id=numbers[self.by_id[self.live[self.by_id]]],
            spaces=self.spaces[kept],
            lengths=self.lengths[kept],
            asks=self.asks[kept],
            live=np.ones(len(kept), dtype=bool),
            keys=self.keys[has_any],
            starts=np.append(before[:-1][has_any], before[-1]),
            docs=numbers[self.docs[there]],
            counts=self.counts[there],
            **_order(self.places, numbers[self.placed], np.ones(len(kept), dtype=bool)),
        )

    @classmethod
    def of(cls, texts: Sequence[Text], analyzer: Analyzer) -> Segment:
        """Make one of texts with distinct ids."""
        n = len(texts)
        ids = np.fromiter((text.memory_id for text in texts), dtype=np.int64, count=n)
        spaces = np.fromiter((space_of(text.namespace) for text in texts), dtype=np.uint64, count=n)
        words = [analyzer.terms(text.content) for text in texts]
        names = [analyzer.terms(text.author) if text.author else [] for text in texts]
        lengths = np.fromiter(map(len, words), dtype=np.int32, count=n)
        placed = np.array([d for d, text in enumerate(texts) if text.position is not None], dtype=np.int32)
        places = _places([texts[d] for d in placed.tolist()])
        order = np.argsort(places)
        return cls(
            ids=ids,
            by_id=np.argsort(ids).astype(np.int32),
            spaces=spaces,
            lengths=lengths,
            asks=np.fromiter((_asks(text.content) for text in texts), dtype=bool, count=n),
            live=np.ones(n, dtype=bool),
            **_postings(words, names, spaces),
            **_order(places[order], placed[order], np.ones(n, dtype=bool)),
        )


COLUMNS = tuple(field.name for field in fields(Segment))


def space_of(namespace: str) -> int:
    """Return the number that stands for a namespace."""
    return _hash(namespace)


def keys_of(terms: Hashes | Sequence[int], spaces: Hashes | int, *, names: bool = False) -> Hashes:
    """Return the keys of terms in texts of these namespaces, or with `names` in their authors' names."""
    mixed = np.asarray(spaces, dtype=np.uint64)
    return _mixed(np.asarray(terms, dtype=np.uint64) ^ _mixed(mixed ^ np.uint64(names)))


def conversations_of(places: npt.NDArray[np.bytes_]) -> Hashes:
    """Return the conversation of each of these places of messages, hashed, in their shape."""
    found: Hashes = places.view(_PLACE)["conversation"]
    return found


def joined(one: Segment, other: Segment) -> Segment:
    """Return what two segments hold together, without what is gone. They have no live memory in common."""
    one, other = one.compacted(), other.compacted()
    shift = np.int32(len(one))
    ids = np.concatenate([one.ids, other.ids])
    live = np.ones(len(ids), dtype=bool)
    at = np.searchsorted(one.places, other.places) + np.arange(len(other.places))
    places = _interleaved(one.places, other.places, at)
    return Segment(
        ids=ids,
        by_id=np.argsort(ids, kind="stable").astype(np.int32),
        spaces=np.concatenate([one.spaces, other.spaces]),
        lengths=np.concatenate([one.lengths, other.lengths]),
        asks=np.concatenate([one.asks, other.asks]),
        live=live,
        **_joined_postings(one, other),
        **_order(places, _interleaved(one.placed, other.placed + shift, at), live),
    )


def _asks(content: str) -> bool:
    return content.rstrip().endswith(_QUESTION_MARKS)


def _postings(
    words: Sequence[Sequence[int]], names: Sequence[Sequence[int]], spaces: Hashes
) -> dict[str, Any]:
    """Return the columns of the postings of texts and of their authors' names."""
    parts = [_keys_and_docs(words, spaces, names=False), _keys_and_docs(names, spaces, names=True)]
    keys = np.concatenate([keys for keys, _ in parts])
    docs = np.concatenate([docs for _, docs in parts])
    order = np.lexsort((docs, keys))
    keys, docs = keys[order], docs[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]) | (docs[1:] != docs[:-1])
    firsts = np.flatnonzero(is_first)
    counts = np.minimum(np.diff(np.append(firsts, len(keys))), _MOST_COUNTED).astype(np.uint8)
    keys, starts = np.unique(keys[firsts], return_index=True)
    return {"keys": keys, "starts": np.append(starts, len(firsts)), "docs": docs[firsts], "counts": counts}


def _keys_and_docs(
    terms: Sequence[Sequence[int]], spaces: Hashes, *, names: bool
) -> tuple[Hashes, npt.NDArray[np.int32]]:
    sizes = np.fromiter(map(len, terms), dtype=np.int64, count=len(terms))
    flat = np.fromiter((t for some in terms for t in some), dtype=np.uint64, count=int(sizes.sum()))
    docs = np.repeat(np.arange(len(terms), dtype=np.int32), sizes)
    return keys_of(flat, spaces[docs], names=names), docs


def _joined_postings(one: Segment, other: Segment) -> dict[str, Any]:
    """Return the columns of the postings of both: for each key first the one's docs, then the other's."""
    keys = np.union1d(one.keys, other.keys)
    sizes = np.zeros(len(keys), dtype=np.int64)
    in_one, in_other = np.searchsorted(keys, one.keys), np.searchsorted(keys, other.keys)
    sizes[in_one] = np.diff(one.starts)
    of_one = sizes[in_other]
    sizes[in_other] += np.diff(other.starts)
    starts = np.append(0, np.cumsum(sizes))
    docs, counts = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.uint8)
    for segment, begins, shift in (
        (one, starts[in_one], 0),
        (other, starts[in_other] + of_one, len(one)),
    ):
        for part, targets in _moves(segment.starts, begins):
            docs[targets] = segment.docs[part] + np.int32(shift)
            counts[targets] = segment.counts[part]
    return {"keys": keys, "starts": starts, "docs": docs, "counts": counts}


def _moves(starts: Ids, begins: Ids) -> Iterator[tuple[slice, Ids]]:
    """Yield runs of postings, and where each is to go: those of key i begin at begins[i]."""
    first = 0
    while first < len(begins):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _AT_ONCE)) - 1)
        part = slice(int(starts[first]), int(starts[last]))
        sizes = np.diff(starts[first : last + 1])
        yield (
            part,
            np.arange(part.start, part.stop) + np.repeat(begins[first:last] - starts[first:last], sizes),
        )
        first = last


def _places(texts: Sequence[Text]) -> npt.NDArray[np.bytes_]:
    places = np.empty(len(texts), dtype=_PLACE)
    places["conversation"] = [_hash(text.namespace, text.source) for text in texts]
    places["at"] = [(text.created_at - _EPOCH) // _MICROSECOND + (1 << 63) for text in texts]
    places["position"] = [(text.position or 0) + (1 << 31) for text in texts]
    places["id"] = [text.memory_id for text in texts]
    return places.view(_PLACE_BYTES)


def _order(places: npt.NDArray[np.bytes_], placed: Docs, live: Flags) -> dict[str, Any]:
    """Return the columns of the order of what is live; `placed` has -1 for what is not here at all."""
    there = placed != NO_DOC
    there[there] = live[placed[there]]
    if not there.all():
        places, placed = places[there], placed[there]
    ranks = np.full(len(live), NO_DOC, dtype=np.int32)
    ranks[placed] = np.arange(len(placed), dtype=np.int32)
    return {"places": places, "placed": placed, "ranks": ranks}


def _interleaved(one: Any, other: Any, at: Ids) -> Any:
    """Return both columns as one, in which the other's stand at these places."""
    both = np.empty(len(one) + len(other), dtype=one.dtype)
    is_one = np.ones(len(both), dtype=bool)
    is_one[at] = False
    both[at], both[is_one] = other, one
    return both


@lru_cache(maxsize=65_536)
def _hash(*names: str) -> int:
    """Return 64 bits for these names; none of them holds a NUL."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=8).digest(), "little")


def _mixed(numbers: Hashes) -> Hashes:
    """Return other numbers for these, one for one, of which every bit hangs on every bit (SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
