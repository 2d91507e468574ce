"""Cuts a text that is longer than a model reads into windows that overlap, where sentences end if it can."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from collections.abc import Sequence

    Span = tuple[int, int]

# Nothing is given back and nothing begins within a run, so that a run of any length is passed once.
_SENTENCE_END = regex.compile(
    r"""
    (?<![.!?…]) [.!?…]++ ["'\p{Pf}\p{Pe}]*+ \s++      # as most scripts end one
    | [\p{Sentence_Terminal}--[.!?]]++ ["'\p{Pf}\p{Pe}]*+ \s*+  # other marks need no space behind them
    | \n \s*+                                       # a line's end ends one too: lists, verses, code
    """,
    regex.VERBOSE | regex.VERSION1,
)


def windows(text: str, spans: Sequence[Span], *, room: int) -> list[str]:
    """Return parts of a text that together hold all of it, each of at most `room` word pieces.

    A window ends where a sentence does, if one ends in its second half, else between two words, else
    between two pieces. The next one begins with the sentences in its last quarter, or with its last one
    if that is shorter than half of it: so what belongs together stands together in one of them. The work
    is proportional to the text.

    Args:
        text: any text.
        spans: first and past-the-last character of each word piece, in order.
        room: word pieces of a window, at least 1.

    """
    n = len(spans)
    if n <= room:
        return [text]
    begins = [begin for begin, _ in spans]
    sentences = sorted({bisect_left(begins, end.end()) for end in _SENTENCE_END.finditer(text)})
    words = [i for i in range(1, n) if spans[i - 1][1] < begins[i]]
    found: list[str] = []
    first = 0
    while first + room < n:
        full = first + room
        end = _last(sentences, first + room // 2, full) or _last(words, full - room // 4, full) or full
        found.append(text[begins[first] : spans[end - 1][1]])
        first = _next(sentences, words, end=end, quarter=room // 4)
    found.append(text[begins[first] : spans[n - 1][1]])
    return found


def _next(sentences: list[int], words: list[int], *, end: int, quarter: int) -> int:
    """Return where the next window begins, behind the middle of the one before."""
    whole = _first(sentences, end - quarter, end) or _last(sentences, end - 2 * quarter, end - 1)
    if whole is not None:
        return whole
    if _first(sentences, end, end + 1) is not None:  # the last sentence is too long to be shared
        return end
    return _first(words, end - quarter, end) or end - quarter


def _last(places: list[int], low: int, high: int) -> int | None:
    """Return the last of these places that is above `low` and at most `high`."""
    at = bisect_right(places, high) - 1
    return places[at] if at >= 0 and places[at] > low else None


def _first(places: list[int], low: int, high: int) -> int | None:
    """Return the first of these places that is at least `low` and below `high`."""
    at = bisect_left(places, low)
    return places[at] if at < len(places) and places[at] < high else None
