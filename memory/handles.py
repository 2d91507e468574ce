"""Numbers that stand for memories in the segments of a word index, for as long as it does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from memory.postings import Docs, Ids, Segment

    Flags = npt.NDArray[np.bool_]

NOWHERE = -1
"""The handle of nothing."""

_DOC_BITS = 32
_DOC_MASK = (1 << _DOC_BITS) - 1


def handles_of(number: int, docs: Docs | Ids) -> Ids:
    """Return the handles of docs of the segment of this number."""
    return (number << _DOC_BITS) | docs.astype(np.int64)


def are_in(handles: Ids, number: int) -> Flags:
    """Return which of the handles are of this segment."""
    here: Flags = handles >> _DOC_BITS == number
    return here


def docs_of(handles: Ids) -> Ids:
    """Return the docs of handles, each in its own segment."""
    return handles & _DOC_MASK


def column_of(
    segments: Sequence[Segment], handles: Ids, column: Callable[[Segment], Any], *, nothing: Any
) -> Any:
    """Return what a column of the segments says of each handle, in the handles' shape."""
    found = np.full(handles.shape, nothing)
    for number, segment in enumerate(segments):
        here = are_in(handles, number)
        found[here] = column(segment)[docs_of(handles[here])]
    return found
