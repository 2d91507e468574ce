"""What is known of each memory and each operation, in Jepsen's words.

An operation is *acknowledged* (it returned), *failed* (it says that nothing was done) or *indeterminate* (it
raised after it may have been done). A memory belongs to one thread, so its operations never overlap, and what
may stand in its row is known: the content of the last acknowledged change, or of an indeterminate one since.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from memory.errors import MemorySystemError, NotFound, QueueFull, SearchUnavailable, ServerAway
from memory.store.rows import Key

T = TypeVar("T")
Draft = Mapping[str, Any]


class Ending(StrEnum):
    """How an operation ended."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    INDETERMINATE = "indeterminate"


@dataclass(slots=True)
class Known:
    """What is known of one memory. Written by the thread it belongs to."""

    draft: Draft
    """As it was first handed over."""
    contents: set[str]
    """Any of these may stand in its row."""
    revisions: set[int]
    """Any of these may be its metadata's `revision`."""
    enqueued: Ending
    deleted: Ending | None = None
    doomed: bool = False
    """Old and unimportant: the scheduled cleanup may take it at any time, and the last one does."""

    def note_revised(self, content: str | None, revision: int, ending: Ending) -> None:
        """Note one update. `content` is None where it stays."""
        if ending is Ending.ACKNOWLEDGED:
            self.revisions = {revision}
            self.contents = {content} if content else self.contents
        elif ending is Ending.INDETERMINATE:
            self.revisions.add(revision)
            self.contents.update({content} if content else ())

    @property
    def must_live(self) -> bool:
        return (
            self.enqueued is Ending.ACKNOWLEDGED and not self.doomed and self.deleted in {None, Ending.FAILED}
        )

    @property
    def must_be_gone(self) -> bool:
        """Whether it must not live. It was stored before, or it is doomed."""
        return self.deleted is Ending.ACKNOWLEDGED or self.doomed


@dataclass
class Ledger:
    """All memories and the counts of all operations."""

    memories: dict[Key, Known] = field(default_factory=dict)
    poison: dict[str, Ending] = field(default_factory=dict)
    """By uid: entries that can never be stored."""
    operations: Counter[tuple[str, Ending]] = field(default_factory=Counter)
    n_skipped: int = 0
    n_retries: int = 0
    resurrected: list[str] = field(default_factory=list)
    """Deleted memories that a search found."""
    unexpected: list[str] = field(default_factory=list)
    """Errors that no caller could have expected."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, operation: str, ending: Ending) -> None:
        with self._lock:
            self.operations[operation, ending] += 1

    def note_enqueued(
        self, draft: Draft, ending: Ending, *, doomed: bool = False, first_has_won: bool = False
    ) -> None:
        """Note one enqueue. Of a key's contents the one that arrives first wins, and stays."""
        key = (str(draft["namespace"]), str(draft["uid"]))
        known = self.memories.get(key)
        if known is None:
            self.memories[key] = Known(
                draft=draft, contents={draft["content"]}, revisions={0}, enqueued=ending, doomed=doomed
            )
            return
        if not first_has_won:
            known.contents.add(draft["content"])
        if ending is Ending.ACKNOWLEDGED or known.enqueued is Ending.FAILED:
            known.enqueued = ending

    def count(self, ending: Ending) -> int:
        """Return how many memories' enqueue ended so."""
        return sum(known.enqueued is ending for known in self.memories.values())


class Attempts:
    """Runs operations as a real caller would: again after an outage, up to some patience."""

    def __init__(self, ledger: Ledger, *, pause: Callable[[float], object]) -> None:
        self._ledger = ledger
        self._pause = pause

    def run(self, name: str, call: Callable[[], T], *, n_more: int) -> tuple[Ending, T | None]:
        """Return how it ended over all tries, and its result where it was acknowledged.

        Args:
            name: of the operation.
            call: may be run twice.
            n_more: how often it is tried again.

        """
        worst = Ending.FAILED
        for n_left in range(n_more, -1, -1):
            try:
                result = call()
            except (ServerAway, SearchUnavailable):
                worst = Ending.INDETERMINATE
            except QueueFull:
                pass
            except NotFound:
                # Of a delete that is tried again, this is the answer: the first try did it.
                ending = Ending.ACKNOWLEDGED if worst is Ending.INDETERMINATE else Ending.FAILED
                self._ledger.note(name, ending)
                return ending, None
            except Exception as error:  # noqa: BLE001 (whatever else comes out of a client is a finding)
                self._ledger.unexpected.append(f"{name}: {type(error).__name__}: {error}")
                worst = Ending.INDETERMINATE
                if isinstance(error, MemorySystemError):
                    break
            else:
                self._ledger.note(name, Ending.ACKNOWLEDGED)
                return Ending.ACKNOWLEDGED, result
            if n_left:
                self._ledger.n_retries += 1
                self._pause(0.2)
        self._ledger.note(name, worst)
        return worst, None
