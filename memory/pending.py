"""Brings memories that wait for their embedding, and have lost their place on the stream, back onto it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from memory.errors import QueueFull
from memory.messages import raw_of, to_envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.store.pending import PendingRows
    from memory.stream import IngestStream
    from memory.stream_watch import StreamWatch

log = structlog.get_logger(__name__)

MARGIN = timedelta(seconds=30)
AT_ONCE = 500


class Requeuer:
    """Pushes every pending memory again that no entry on the stream stands for.

    A memory is pending from its commit on, and its entry is pushed right after that. So one that has waited
    longer than the oldest entry, by a margin, has none: Redis was away, full or emptied. A memory that is
    pushed twice is embedded once all the same.

    Args:
        rows: the pending memories.
        stream: where they go, on the bulk lane.
        watch: tells the age of the stream's oldest entry. Ages are compared, not instants: the clocks of
            Redis and of the database may differ.
        margin: between commit and push.

    """

    def __init__(
        self, rows: PendingRows, stream: IngestStream, watch: StreamWatch, *, margin: timedelta = MARGIN
    ) -> None:
        self._rows = rows
        self._stream = stream
        self._watch = watch
        self._margin = margin

    def run(self, *, should_stop: Callable[[], bool]) -> int:
        """Push until none is left, the lane is full, or it should stop; return how many.

        Raises:
            ServerAway: Redis or the database cannot be reached.

        """
        longer_than = timedelta(seconds=self._watch.read().oldest_waiting_s or 0) + self._margin
        n_pushed = 0
        while not should_stop() and (left := self._rows.waiting(longer_than=longer_than, limit=AT_ONCE)):
            try:
                self._stream.push([to_envelope(raw_of(memory)) for memory in left], lane="bulk")
            except QueueFull as full:
                log.warning("requeue_waits", reason=str(full))
                break
            self._rows.wait_anew([memory.id for memory in left])
            n_pushed += len(left)
        if n_pushed:
            log.info("requeued", n=n_pushed)
        return n_pushed
