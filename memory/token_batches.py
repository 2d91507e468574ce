"""Groups texts into passes through the model of about equal cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], *, max_tokens: int, max_rows: int) -> Iterator[list[int]]:
    """Yield lists of positions in `lengths`, longest texts first, that pad to at most `max_tokens`.

    A pass costs its rows times its longest row, since the others are padded to that. Sorted by
    length, neighbours need next to no padding. A single text longer than `max_tokens` goes alone.

    Args:
        lengths: word pieces of each text.
        max_tokens: rows times longest row, at most.
        max_rows: rows of one pass, at most.

    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    batch: list[int] = []
    for i in order:
        longest = lengths[batch[0]] if batch else lengths[i]
        if batch and (len(batch) >= max_rows or (len(batch) + 1) * longest > max_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
