"""The producer: validates raw memories and pushes them onto the stream. Accepted means: Redis has them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, overload

import structlog

from memory.errors import InvalidMemory, QueueFull, Recoverable
from memory.messages import RawMemory, from_mapping, to_envelope

if TYPE_CHECKING:
    from memory.broker import Nudger
    from memory.models import Receipt
    from memory.store.pending import PendingRows
    from memory.stream import IngestStream, Lane

log = structlog.get_logger(__name__)

T = TypeVar("T")

CHUNK = 500
CHUNK_BYTES = 8 * 2**20
"""A push stops growing at so many memories or so many bytes of content."""

Draft = RawMemory | Mapping[str, Any] | str
"""What may be enqueued: a validated memory, a mapping with the fields of one, or just its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One memory that was refused, by its position in what was handed over, from 0."""

    position: int
    reason: str
    rule: str = ""
    """the same without the value that was refused: nothing of the memory is in it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued(Sequence["Receipt"]):
    """The receipts of what was accepted, in order, and what was refused and why."""

    receipts: tuple[Receipt, ...]
    rejected: tuple[Rejected, ...]

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Receipt, ...]: ...
    def __getitem__(self, index: int | slice) -> Receipt | tuple[Receipt, ...]:
        return self.receipts[index]

    def __len__(self) -> int:
        return len(self.receipts)


class Producer:
    """Pushes raw memories: one at a time on the fast lane, many on the bulk lane.

    Args:
        stream: where they go.
        nudger: wakes the embed workers.
        max_content_bytes: bound of one memory's content.
        rows: where they are stored first, if accepted is to mean that the database has them.

    """

    def __init__(
        self,
        *,
        stream: IngestStream,
        nudger: Nudger,
        max_content_bytes: int,
        rows: PendingRows | None = None,
    ) -> None:
        self._stream = stream
        self._nudger = nudger
        self._max_content_bytes = max_content_bytes
        self._rows = rows

    def enqueue(self, raw: RawMemory) -> Receipt:
        """Push one memory ahead of every bulk import.

        Raises:
            QueueFull: nothing was pushed; try again later.
            ServerAway: Redis cannot be reached; push the same memory (the same uid) again.

        """
        self.push([raw], lane="fast")
        return raw.receipt

    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float) -> Enqueued:
        """Push many memories behind everything that waits. A bad one is refused, the rest goes on.

        Args:
            drafts: any iterable; it is read as it is pushed, in chunks.
            patience_s: how long to wait for room each time the lane is full.

        Raises:
            QueueFull: there was no room in time. What was pushed before stays accepted.
            ServerAway: Redis cannot be reached; push the same again, under the same uids.

        """
        receipts: list[Receipt] = []
        rejected: list[Rejected] = []
        for chunk in chunks(self._valid(drafts, rejected)):
            self.push_patiently(chunk, patience_s=patience_s)
            receipts.extend(raw.receipt for raw in chunk)
        return Enqueued(receipts=tuple(receipts), rejected=tuple(rejected))

    def push(self, raws: Sequence[RawMemory], *, lane: Lane) -> None:
        """Push all of these or none, and nudge the embed workers."""
        if self._rows is not None:
            self._rows.add(raws)
            self.push_stored(raws, lane=lane)
            return
        self._stream.push([to_envelope(raw) for raw in raws], lane=lane)
        self._nudger.nudge("embed")

    def push_stored(self, raws: Sequence[RawMemory], *, lane: Lane) -> None:
        """Push memories that are stored already and wait for their embedding.

        It is no matter whether Redis takes them: what has no place on the stream is pushed again later.
        """
        try:
            self._stream.push([to_envelope(raw) for raw in raws], lane=lane)
        except Recoverable as error:
            log.warning("push_put_off", n=len(raws), reason=str(error))
            return
        self._nudger.nudge("embed")

    def push_patiently(self, raws: Sequence[RawMemory], *, patience_s: float) -> None:
        """Push on the bulk lane, waiting for room up to `patience_s`."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return self.push(raws, lane="bulk")
            except QueueFull as full:
                if time.monotonic() + full.retry_after_s > deadline:
                    raise
                time.sleep(full.retry_after_s)

    def _valid(self, drafts: Iterable[Draft], rejected: list[Rejected]) -> Iterator[RawMemory]:
        for position, draft in enumerate(drafts):
            try:
                yield validated(draft, max_content_bytes=self._max_content_bytes)
            except InvalidMemory as error:
                rejected.append(refusal(position, error))


def validated(draft: Draft, *, max_content_bytes: int) -> RawMemory:
    """Return the raw memory of a draft.

    Raises:
        InvalidMemory: names the field, its value and what is allowed.

    """
    if isinstance(draft, RawMemory):
        return draft
    if isinstance(draft, str):
        return from_mapping({"content": draft}, max_content_bytes=max_content_bytes)
    data = dict(draft) if isinstance(draft, Mapping) else draft
    return from_mapping(data, max_content_bytes=max_content_bytes)


def refusal(position: int, error: InvalidMemory) -> Rejected:
    """Return how a refused memory is told, with what was refused and without it."""
    field = re.split(r"[.\[]", error.field)[0]  # behind it may stand a key of the metadata
    return Rejected(position=position, reason=str(error), rule=f"{field}: must be {error.allowed}")


def chunks(
    found: Iterable[T],
    *,
    text_of: Callable[[T], str] = attrgetter("content"),
    max_bytes: int | None = None,
) -> Iterator[list[T]]:
    """Yield what is pushed at once: up to 500 memories, or about `max_bytes` (8 MiB) of text."""
    bound = max_bytes or CHUNK_BYTES
    chunk: list[T] = []
    n_bytes = 0
    for one in found:
        chunk.append(one)
        n_bytes += len(text_of(one).encode(errors="surrogatepass"))
        if len(chunk) >= CHUNK or n_bytes >= bound:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk
