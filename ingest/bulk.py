"""Bulk ingest: what is read goes onto the stream, once, and the report says of each file what came of it."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from ingest.chat_logs.messages import Flaw
from ingest.follow import Follower
from ingest.journal import Journal, Progress
from ingest.producer import chunks
from memory.errors import QueueFull
from memory.messages import RawMemory
from memory.models import MemoryState, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ingest.follow import Outcomes
    from ingest.inputs import Input
    from ingest.producer import Producer

    Key = tuple[str, str]

MOST_UNSETTLED = 100_000
"""So many memories are followed at once, of some 300 bytes each."""

_MOST_SHOWN = 5
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class FileReport:
    """What came of one input, over all runs that it took."""

    name: str
    format: str
    progress: Progress


@dataclass(slots=True)
class BulkReport:
    """What came of a bulk ingest. Mutable: it grows while the files are read."""

    files: dict[str, FileReport] = field(default_factory=dict)  # by name
    n_rejected: int = 0  # in this run
    first_rejected: list[Flaw] = field(default_factory=list)
    rejects_file: Path | None = None

    def total(self, count: str) -> int:
        """Return the sum of one of `Progress`' counts over all files."""
        return sum(getattr(file.progress, count) for file in self.files.values())


@dataclass(slots=True)
class _Mark:
    """A place in an input, up to which all is pushed."""

    input_key: str
    progress: Progress
    end: int  # so many memories and flaws of the input
    n_followed: int = 0  # so many followed memories must be settled, for this place to be
    key_of_one: Key | None = None  # of one of the memories before this place


class BulkIngest:
    """Pushes inputs through a producer.

    Args:
        producer: where they go.
        outcomes: how far each of some memories has come: what is stored already is not pushed again.
        rejects: file for what cannot be read, one JSON object each; made when needed.
        patience_s: how long to wait each time the lane is full.

    """

    def __init__(
        self, producer: Producer, *, outcomes: Outcomes, rejects: Path, patience_s: float = 3600
    ) -> None:
        self._producer = producer
        self._outcomes = outcomes
        self._rejects = rejects
        self._patience_s = patience_s
        self._unsettled: deque[_Mark] = deque()
        self._n_pushed: dict[str, int] = {}  # of each input, by this run
        self.report = BulkReport()
        self.follower = Follower(outcomes)

    def run(self, inputs: Iterable[Input], journal: Journal, *, on_progress: Callable[[], None]) -> None:
        """Push what each input holds; call `on_progress` after each chunk.

        Killed at any moment and run again, it goes on where it was: what was stored by then is not pushed
        again, and what was pushed twice is stored once.

        Raises:
            QueueFull, ServerAway: as the producer says; what was accepted stays accepted.

        """
        for source in inputs:
            progress = self._resumed(journal.of(source.key))
            self.report.files[source.name] = FileReport(
                name=source.name, format=source.format, progress=progress
            )
            self._run_one(source, progress, journal, on_progress)
            on_progress()

    def _run_one(
        self, source: Input, progress: Progress, journal: Journal, on_progress: Callable[[], None]
    ) -> None:
        found = source.memories()
        end = max(progress.n_settled, self._n_pushed.get(source.key, 0))
        deque(islice(found, end), maxlen=0)
        # What an earlier run has read and counted, but not seen settled.
        for chunk in _chunks(islice(found, progress.n_read - end)):
            end += len(chunk)
            self._push(chunk, self._states(chunk), _Mark(source.key, progress, end))
            on_progress()
        for chunk in _chunks(found):
            end += len(chunk)
            states = self._states(chunk)
            self._count(chunk, states, progress)
            journal.note(source.key, progress)
            self._push(chunk, states, _Mark(source.key, progress, end))
            on_progress()

    def start_over(self, journal: Journal) -> None:
        """Read every input from its start the next time; what is stored is not pushed again even so."""
        self._n_pushed.clear()
        self._unsettled.clear()
        journal.close()

    def note_settled(self, journal: Journal) -> None:
        """Write into the journal how much is settled by now; look at the follower before."""
        n_settled = self.follower.n_settled_first
        changed: dict[str, Progress] = {}
        while self._unsettled and self._unsettled[0].n_followed <= n_settled:
            mark = self._unsettled.popleft()
            mark.progress.n_settled = mark.end
            mark.progress.settled_uid = mark.key_of_one or mark.progress.settled_uid
            changed[mark.input_key] = mark.progress
        for key, progress in changed.items():
            journal.note(key, progress)

    def reject(self, flaw: Flaw) -> None:
        """Write it into the file of what was rejected."""
        self.report.n_rejected += 1
        self.report.rejects_file = self._rejects
        if len(self.report.first_rejected) < _MOST_SHOWN:
            self.report.first_rejected.append(flaw)
        self._rejects.parent.mkdir(parents=True, exist_ok=True)
        record = {"file": flaw.place.file, "at": flaw.place.at, "reason": flaw.reason, "text": flaw.text}
        with self._rejects.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _make_room(self) -> None:
        """Wait while very many memories are on their way: what is followed is held in this process."""
        deadline = time.monotonic() + self._patience_s
        while self.follower.n_unsettled >= MOST_UNSETTLED:
            n_moved = self.follower.n_moved
            self.follower.look()
            if self.follower.n_moved != n_moved:
                deadline = time.monotonic() + self._patience_s
            elif time.monotonic() > deadline:
                message = (
                    f"{self.follower.n_unsettled} memories wait, and none has moved in {self._patience_s} s"
                )
                raise QueueFull(message, retry_after_s=self._patience_s)
            time.sleep(_LOOK_EVERY_S)

    def _resumed(self, saved: Progress) -> Progress:
        """Return the progress, or a new start where what it says is settled is not in this database."""
        if saved.settled_uid is None:
            return saved
        namespace, uid = saved.settled_uid
        [outcome] = self._outcomes([Receipt(uid=uid, namespace=namespace)])
        return Progress() if outcome.state is MemoryState.ACCEPTED else saved

    def _states(self, chunk: list[RawMemory | Flaw]) -> dict[Key, MemoryState]:
        receipts = [found.receipt for found in chunk if isinstance(found, RawMemory)]
        return {(o.receipt.namespace, o.receipt.uid): o.state for o in self._outcomes(receipts)}

    def _count(
        self, chunk: list[RawMemory | Flaw], states: dict[Key, MemoryState], progress: Progress
    ) -> None:
        for found in chunk:
            progress.n_read += 1
            if isinstance(found, Flaw):
                progress.n_rejected += 1
                self.reject(found)
            else:
                progress.count(found, states[found.key])

    def _push(self, chunk: list[RawMemory | Flaw], states: dict[Key, MemoryState], mark: _Mark) -> None:
        memories = [found for found in chunk if isinstance(found, RawMemory)]
        new = [memory for memory in memories if states[memory.key] is MemoryState.ACCEPTED]
        if new:
            self._make_room()
            self._producer.push_patiently(new, patience_s=self._patience_s)
            self.follower.add(memory.receipt for memory in new)
        mark.n_followed = self.follower.n_accepted
        mark.key_of_one = memories[-1].key if memories else None
        self._unsettled.append(mark)
        self._n_pushed[mark.input_key] = mark.end


def _chunks(found: Iterable[RawMemory | Flaw]) -> Iterator[list[RawMemory | Flaw]]:
    return chunks(found, text_of=lambda one: one.content if isinstance(one, RawMemory) else one.text)
