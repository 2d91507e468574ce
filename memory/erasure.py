"""Erases many memories wherever the pipeline holds them, and shows by a receipt that they are gone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from memory.errors import Recoverable
from memory.messages import Label, label_of, peek_label
from memory.search_request import SearchRequest, search_request
from memory.selector import Selector
from memory.store.erasing import Erasing
from memory.store.memories import MemoryStore
from memory.stream import LANES
from memory.validation import MAX_CONTENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from memory.database import Database
    from memory.index_traces import IndexTraces
    from memory.models import MemoryId, SearchHit, Seq
    from memory.replies import Replies
    from memory.store.erasing import Letter, Sample
    from memory.store.rows import Key
    from memory.stream import Entry, IngestStream, Lane

log = structlog.get_logger(__name__)

SAMPLED = 100
"""Searches for so many of the erased memories, at most."""

_HITS = 10
_PASSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """How much of the chosen memories is left, by place. `None`: not looked at, in a dry run."""

    rows: int = 0
    streams: int = 0
    dead_letters: int = 0
    results: int = 0
    index: int | None = None
    snapshots: int | None = None
    found_by_search: int | None = None

    @property
    def total(self) -> int:
        """How much is left in all places together."""
        return sum(n for n in asdict(self).values() if n is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReceipt:
    """What an erasure did, and what it found when it looked again. `seq` is its last removal's number."""

    selector: Selector
    at: datetime  # when it had looked again; aware UTC
    dry_run: bool
    n_erased: int = 0  # rows
    n_entries: int = 0
    n_dead_letters: int = 0
    n_replies: int = 0
    n_quarantined: int = 0
    n_searches: int = 0
    seq: Seq | None = None
    remaining: Remaining

    @property
    def complete(self) -> bool:
        """Whether it really erased, and then found nothing anywhere."""
        return not self.dry_run and self.remaining.total == 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the instant in ISO 8601."""
        return {**asdict(self), "at": self.at.isoformat(), "complete": self.complete}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ErasureReceipt:
        """Read what `as_json` wrote."""
        given = {name: value for name, value in data.items() if name != "complete"}
        chosen = given["selector"]
        given["selector"] = Selector(**{**chosen, "ids": tuple(chosen["ids"])})
        given["remaining"] = Remaining(**given["remaining"])
        return cls(**{**given, "at": datetime.fromisoformat(given["at"])})


@dataclass(slots=True, kw_only=True)
class _Work:
    """One erasure under way: which memories, how far back it looks, and what it did."""

    chosen: Selector
    keys: set[Key]
    ends: Mapping[Lane, str] = field(default_factory=dict)
    newest_id: MemoryId | None = None
    samples: Sequence[Sample] = ()
    n_erased: int = 0
    n_entries: int = 0
    n_dead_letters: int = 0
    n_replies: int = 0
    seq: Seq | None = None

    def takes(self, label: Label) -> bool:
        return self.chosen.takes(label, keys=self.keys)


class Erasure:
    """Erases in the database, on the streams, among the answers, and through the indexer in the index.

    Every step may run twice. Killed at any point, the same call again does the rest.

    Args:
        database: whose memories.
        stream: where raw memories wait.
        replies: where answers wait that hold memories.
        ask_indexer: lets the index's owner let go of what is not live.
        search: searches as anybody does.

    """

    def __init__(
        self,
        *,
        database: Database,
        stream: IngestStream,
        replies: Replies,
        ask_indexer: Callable[[], IndexTraces],
        search: Callable[[SearchRequest], Sequence[SearchHit]],
    ) -> None:
        self._rows = Erasing(database)
        self._store = MemoryStore(database)
        self._stream = stream
        self._replies = replies
        self._ask_indexer = ask_indexer
        self._search = search

    def count(self, chosen: Selector) -> ErasureReceipt:
        """Count what there is of these memories; erase nothing."""
        work = _Work(chosen=chosen, keys=self._rows.keys(chosen.ids), ends=self._stream.ends())
        remaining = self._left(work)
        return ErasureReceipt(selector=chosen, at=datetime.now(UTC), dry_run=True, remaining=remaining)

    def erase(self, chosen: Selector) -> ErasureReceipt:
        """Erase these memories for good, look again everywhere, and say what was found.

        A memory that is enqueued after the call began is not its matter.

        Raises:
            SearchUnavailable: the indexer gave no answer; all but the index and its snapshots is erased.
            ServerAway: Redis or the database cannot be reached; the same call again does the rest.

        """
        work = _Work(chosen=chosen, keys=self._rows.keys(chosen.ids))
        # What is just taken from the dead letters to be tried again is on the streams if it is not here.
        self._erase_letters(work)
        work.ends = self._stream.ends()
        for _ in range(_PASSES):
            self._erase_entries(work)
            self._erase_rows(work)
            self._rows.wait_for_letters()
            self._erase_letters(work)
            left = self._left(work)
            if not left.rows + left.streams + left.dead_letters:
                break
        traces = self._ask_indexer() if self._rows.has_any(chosen) else None
        n_found = sum(self._is_found(sample, work.seq) for sample in work.samples)
        work.n_replies = self._replies.remove(self._held_replies(work))
        self._rewrite_log()
        return ErasureReceipt(
            selector=chosen,
            at=datetime.now(UTC),
            dry_run=False,
            n_erased=work.n_erased,
            n_entries=work.n_entries,
            n_dead_letters=work.n_dead_letters,
            n_replies=work.n_replies,
            n_quarantined=traces.n_quarantined if traces else 0,
            n_searches=len(work.samples),
            seq=work.seq,
            remaining=replace(
                self._left(work),
                index=traces.n_in_index if traces else 0,
                snapshots=traces.n_in_snapshots if traces else 0,
                found_by_search=n_found,
            ),
        )

    def _left(self, work: _Work) -> Remaining:
        return Remaining(
            rows=len(self._rows.live_ids(work.chosen, until=work.newest_id)),
            streams=sum(len(page) for page in self._entries(work)),
            dead_letters=sum(len(page) for page in self._letters(work)),
            results=len(self._held_replies(work)),
        )

    def _erase_entries(self, work: _Work) -> None:
        """Take the keys before the entries go: a worker may have one in hand, or get it again."""
        for page in self._entries(work):
            self._rows.take_keys([label for _, label in page])
            self._stream.acknowledge([entry for entry, _ in page])
            work.n_entries += len(page)

    def _erase_rows(self, work: _Work) -> None:
        """Bury after the streams: whatever a worker had in hand is a row by now, or never will be one."""
        if work.newest_id is None:
            work.newest_id = self._rows.newest_id()
        ids = self._rows.live_ids(work.chosen, until=work.newest_id)
        if not work.samples:
            work.samples = self._rows.samples(_evenly(ids))
        n_buried, seq = self._rows.bury(ids, work.chosen)
        work.n_erased += n_buried
        work.seq = seq or work.seq

    def _erase_letters(self, work: _Work) -> None:
        for page in self._letters(work):
            self._rows.take_keys([label for _, label in page])
            work.n_dead_letters += self._rows.remove_letters([letter.id for letter, _ in page])

    def _entries(self, work: _Work) -> Iterator[list[tuple[Entry, Label]]]:
        """Yield the entries of these memories, in pages: what waited when the call began.

        A later one counts where its memory is a tombstone: it was in hand and was put back.
        """
        for lane in LANES:
            end = _place(work.ends.get(lane, "0-0"))
            for page in self._stream.pages(lane):
                taken = [(e, label) for e in page if work.takes(label := peek_label(e.body or b""))]
                later = {label.key for e, label in taken if label.key and _place(e.stream_id) > end}
                back = self._store.buried(key for key in later if key)
                wanted = [(e, lb) for e, lb in taken if _place(e.stream_id) <= end or lb.key in back]
                if wanted:
                    yield wanted

    def _letters(self, work: _Work) -> Iterator[list[tuple[Letter, Label]]]:
        for page in self._rows.letters():
            taken = [(letter, label) for letter in page if work.takes(label := _label(letter))]
            if taken:
                yield taken

    def _held_replies(self, work: _Work) -> list[str]:
        return self._replies.holding(
            lambda answer: any(work.takes(label_of(hit)) for hit in answer.get("hits") or ())
        )

    def _is_found(self, sample: Sample, seq: Seq | None) -> bool:
        request = search_request(
            sample.content,
            max_content_bytes=MAX_CONTENT_BYTES,
            min_seq=seq,
            options={"namespace": sample.namespace, "limit": _HITS},
        )
        return any(hit.memory.id == sample.memory_id for hit in self._search(request))

    def _rewrite_log(self) -> None:
        try:
            self._stream.rewrite_log()
        except Recoverable as error:
            log.warning("redis_log_not_rewritten", reason=str(error))


def _label(letter: Letter) -> Label:
    """Return what the bytes say, and where they say nothing, what the letter's own columns do."""
    said = peek_label(letter.body)
    return replace(said, namespace=letter.namespace or said.namespace, uid=letter.uid or said.uid)


def _evenly(ids: Sequence[MemoryId]) -> list[MemoryId]:
    n = min(SAMPLED, len(ids))
    return [ids[i * len(ids) // n] for i in range(n)]


def _place(stream_id: str) -> tuple[int, int]:
    ms, _, n = stream_id.partition("-")
    return int(ms), int(n)
