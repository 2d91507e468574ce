"""What was said before and after a message, over all segments of a word index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from memory.handles import NOWHERE, are_in, column_of, docs_of, handles_of
from memory.postings import NO_DOC, conversations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory.postings import Ids, Segment


def around(segments: Sequence[Segment], handles: Ids, *, n: int) -> Ids:
    """Return int64 (len(handles), 2n + 1): the n messages before each, itself, the n behind it.

    In the order of their conversation: by date, then position, then id. NOWHERE where there is none.
    """
    found = np.full((len(handles), 2 * n + 1), NOWHERE, dtype=np.int64)
    found[:, n] = handles
    ranks = column_of(segments, handles, lambda segment: segment.ranks, nothing=np.int32(NO_DOC))
    messages = np.flatnonzero(ranks != NO_DOC)
    if len(messages):
        own = handles[messages]
        found[messages, :n] = _nearest(segments, own, steps=np.arange(-1, -n - 1, -1))[:, ::-1]
        found[messages, n + 1 :] = _nearest(segments, own, steps=np.arange(n))
    return found


def _nearest(segments: Sequence[Segment], own: Ids, *, steps: Ids) -> Ids:
    """Return int64 (len(own), len(steps)): the nearest messages in that direction, nearest first."""
    places = _places(segments, own)
    parts = list(_in_each(segments, own, places, steps=steps))
    if not parts:
        return np.full((len(own), len(steps)), NOWHERE, dtype=np.int64)
    if len(parts) == 1:
        return parts[0][1]
    # What is nowhere has a place beyond all others.
    beyond = b"" if steps[0] < 0 else b"\xff" * places.itemsize
    theirs = np.concatenate([np.where(ids == NOWHERE, beyond, at) for at, ids in parts], axis=1)
    order = np.argsort(theirs, axis=1, kind="stable")
    order = order[:, ::-1] if steps[0] < 0 else order
    found: Ids = np.take_along_axis(np.concatenate([ids for _, ids in parts], axis=1), order, axis=1)
    return found[:, : len(steps)]


def _in_each(segments: Sequence[Segment], own: Ids, places: Any, *, steps: Ids) -> Iterator[tuple[Any, Ids]]:
    """Yield the places and handles of the nearest in each segment that has any, in the result's shape."""
    conversations = conversations_of(places)
    for number, segment in enumerate(segments):
        if not len(segment.places):
            continue
        begin = np.searchsorted(segment.places, places)
        if steps[0] >= 0:
            begin = begin + are_in(own, number)  # behind itself
        ranks = begin[:, None] + steps
        there = (ranks >= 0) & (ranks < len(segment.places))
        ranks = np.where(there, ranks, 0)
        at = segment.places[ranks]
        there &= conversations_of(at) == conversations[:, None]
        if there.any():
            yield at, np.where(there, handles_of(number, segment.placed[ranks]), NOWHERE)


def _places(segments: Sequence[Segment], own: Ids) -> Any:
    """Return the places of messages."""
    dtype = next(segment.places.dtype for segment in segments)
    places = np.empty(len(own), dtype=dtype)
    for number, segment in enumerate(segments):
        here = are_in(own, number)
        places[here] = segment.places[segment.ranks[docs_of(own[here])]]
    return places
