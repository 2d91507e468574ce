"""The producer's chunks: everything in order, none too large to push at once."""

from __future__ import annotations

import pytest

from ingest import producer
from ingest.producer import Enqueued, Rejected, chunks
from memory.messages import RawMemory, raw_memory
from memory.models import Receipt


def memory_of(content: str, uid: int) -> RawMemory:
    return raw_memory(content, uid=str(uid), max_content_bytes=2**20)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(0, []), (1, [1]), (499, [499]), (500, [500]), (501, [500, 1]), (1001, [500, 500, 1])],
)
def test_a_chunk_has_500_memories_at_most(n: int, sizes: list[int]) -> None:
    raws = [memory_of("It rained.", uid) for uid in range(n)]
    made = list(chunks(raws))
    assert [len(chunk) for chunk in made] == sizes
    assert [raw for chunk in made for raw in chunk] == raws


def test_large_memories_make_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "CHUNK_BYTES", 1000)
    raws = [memory_of("x" * 300, uid) for uid in range(9)]
    assert [len(chunk) for chunk in chunks(raws)] == [4, 4, 1]


def test_chunks_are_made_while_the_memories_are_read() -> None:
    n_read = 0

    def count() -> object:
        nonlocal n_read
        for uid in range(2000):
            n_read += 1
            yield memory_of("It rained.", uid)

    next(iter(chunks(count())))  # type: ignore[arg-type]
    assert n_read == 500


def test_what_was_enqueued_is_a_sequence_of_its_receipts() -> None:
    receipts = tuple(Receipt(uid=str(i), namespace="default") for i in range(3))
    enqueued = Enqueued(receipts=receipts, rejected=(Rejected(position=1, reason="blank"),))
    assert list(enqueued) == list(receipts)
    assert (len(enqueued), enqueued[0], enqueued[1:]) == (3, receipts[0], receipts[1:])
