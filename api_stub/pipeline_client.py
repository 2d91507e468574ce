"""The client that speaks straight to Redis and the database: the pipeline's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Unpack

from typing_extensions import override

from api_stub.client import FIRST_LOOK_S, SLOWEST_LOOK_S, MemoryClient, own_or_default
from ingest.producer import Draft, Enqueued, Producer
from memory.broker import Nudger, TaskName, ask, make_celery
from memory.cleanup import CleanupPolicy, CleanupReport, clean_up
from memory.database import Database
from memory.erasure import Erasure, ErasureReceipt
from memory.errors import NoReranker, NotYetSearchable, SearchUnavailable
from memory.filters import check_where
from memory.index_traces import IndexTraces
from memory.linking import Linking
from memory.logs import log_as_a_library
from memory.messages import raw_memory, raw_of
from memory.models import (
    Memory,
    MemoryAssociation,
    MemoryState,
    MemoryType,
    Outcome,
    Receipt,
    Related,
    SearchHit,
    Seq,
)
from memory.replies import Replies
from memory.revision import Revision
from memory.search_request import SearchOptions, SearchRequest, search_request
from memory.selector import selector
from memory.status import Status, read_status, read_vitals
from memory.store.associations import Associations
from memory.store.dead_letters import DeadLetter, DeadLetters
from memory.store.event_log import EventLog
from memory.store.memories import Counts, MemoryStore
from memory.store.pending import PendingRows
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch
from memory.validation import (
    MAX_CONTEXT,
    check_id,
    check_limit,
    check_name,
    check_types,
    check_whole,
)
from memory.verdict import Limits, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from memory.settings import Settings

_LONGEST_WAIT_IN_INDEXER_S = 0.25
"""There it keeps others from being answered."""


class PipelineClient(MemoryClient):
    """Talks to a running pipeline: accepted means that Redis has it."""

    def __init__(self, settings: Settings) -> None:
        log_as_a_library()
        self._settings = settings
        self._database = Database(settings.database_url)
        self._store = MemoryStore(self._database)
        self._events = EventLog(self._database)
        self._dead_letters = DeadLetters(self._database)
        self._linking = Linking(store=self._store, associations=Associations(self._database))
        self._stream = IngestStream(
            settings.redis_database_url("ingest"),
            max_waiting=settings.max_waiting,
            fsync=settings.durability == "fsync",
        )
        self._watch = StreamWatch(settings.redis_database_url("ingest"))
        self._replies = Replies(settings.redis_database_url("results"))
        self._app = make_celery(settings, publishes_only=True)
        self._nudger = Nudger(self._app, self._stream)
        self.producer = Producer(
            stream=self._stream,
            nudger=self._nudger,
            max_content_bytes=settings.max_content_bytes,
            rows=PendingRows(self._database) if settings.durability == "db" else None,
        )
        self._revision = Revision(
            store=self._store, embedder=None, max_content_bytes=settings.max_content_bytes
        )

    @override
    def close(self) -> None:
        self._nudger.close()
        self._stream.close()
        self._watch.close()
        self._replies.close()
        self._app.close()
        self._database.close()

    @override
    def enqueue(
        self,
        content: str,
        *,
        memory_type: MemoryType | str = MemoryType.EPISODIC,
        source: str = "user",
        metadata: dict[str, Any] | None = None,
        uid: str | None = None,
        namespace: str | None = None,
        created_at: Any = None,
    ) -> Receipt:
        raw = raw_memory(
            content,
            max_content_bytes=self._settings.max_content_bytes,
            memory_type=memory_type,
            source=source,
            metadata=metadata,
            uid=uid,
            namespace=own_or_default(namespace),
            created_at=created_at,
        )
        return self.producer.enqueue(raw)

    @override
    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float = 60) -> Enqueued:
        return self.producer.enqueue_many(drafts, patience_s=patience_s)

    @override
    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        keys = [(r.namespace, r.uid) for r in receipts]
        rows = self._store.progress(keys)
        reasons = self._dead_letters.reasons(k for k in keys if k not in rows or rows[k].failed)
        found: list[Outcome] = []
        for receipt, key in zip(receipts, keys, strict=True):
            row = rows.get(key)
            if row and not (row.failed and key in reasons):
                state = MemoryState.SEARCHABLE if row.searchable else MemoryState.STORED
                state = MemoryState.DELETED if row.deleted else state
                found.append(Outcome(receipt=receipt, state=state, id=row.memory_id, seq=row.seq))
            elif key in reasons:
                dead = Outcome(
                    receipt=receipt,
                    state=MemoryState.DEAD,
                    id=row.memory_id if row else None,
                    reason=reasons[key],
                )
                found.append(dead)
            else:
                found.append(Outcome(receipt=receipt, state=MemoryState.ACCEPTED))
        return found

    @override
    def search(
        self,
        query: str,
        *,
        min_seq: int | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        request = search_request(
            query,
            max_content_bytes=self._settings.max_content_bytes,
            min_seq=min_seq,
            options=options,
        )
        return self._search(request, timeout_s=timeout_s or self._settings.search_timeout_s)

    @override
    def get(self, memory_id: int, *, namespaces: Collection[str] | None = None) -> Memory:
        return self._store.get(check_id("memory_id", memory_id), namespaces=namespaces)

    @override
    def get_by_uid(self, uid: str, *, namespace: str | None = None) -> Memory:
        namespace = check_name("namespace", own_or_default(namespace))
        return self._store.get_by_uid(check_name("uid", uid), namespace=namespace)

    @override
    def context(self, memory_id: int, *, before: int = 2, after: int = 2) -> list[Memory]:
        before = check_whole("before", before, low=0, high=MAX_CONTEXT)
        after = check_whole("after", after, low=0, high=MAX_CONTEXT)
        return self._store.context(check_id("memory_id", memory_id), before=before, after=after)

    @override
    def update(
        self,
        memory_id: int,
        *,
        content: str | None = None,
        memory_type: MemoryType | str | None = None,
        source: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Receipt:
        revised = self._revision.revise(
            check_id("memory_id", memory_id),
            content=content,
            memory_type=memory_type,
            source=source,
            metadata=metadata,
        )
        raw = raw_of(revised)
        if content is not None:
            self.producer.push_stored([raw], lane="fast")
        self._nudger.nudge("index")
        return raw.receipt

    @override
    def list_memories(
        self,
        *,
        namespace: str | None = None,
        memory_types: Iterable[MemoryType | str] | MemoryType | str | None = None,
        where: Mapping[str, Any] | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        return self._store.page(
            check_name("namespace", own_or_default(namespace)),
            check_types(memory_types),
            None if where is None else check_where(where),
            after=None if after is None else check_id("after", after),
            limit=check_limit(limit),
        )

    @override
    def associate(
        self,
        memory_id: int,
        related_memory_id: int,
        relationship_type: str,
        *,
        strength: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryAssociation:
        return self._linking.link(
            memory_id,
            related_memory_id,
            relationship_type=relationship_type,
            strength=strength,
            metadata=metadata,
        )

    @override
    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        return self._linking.unlink(memory_id, related_memory_id, relationship_type=relationship_type)

    @override
    def related(
        self,
        memory_id: int,
        *,
        relationship_type: str | None = None,
        min_strength: float = 0.0,
        direction: str = "both",
        depth: int = 1,
    ) -> list[Related]:
        return self._linking.related(
            memory_id,
            relationship_type=relationship_type,
            min_strength=min_strength,
            direction=direction,
            depth=depth,
        )

    @override
    def delete(self, memory_id: int) -> Seq:
        seq = self._store.delete(check_id("memory_id", memory_id))
        self._nudger.nudge("index")
        return seq

    @override
    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        report = clean_up(self._database, policy, dry_run=dry_run, force=force)
        if report.deleted:
            self._nudger.nudge("index")
        return report

    def applied_seq(self) -> Seq:
        """Return the newest write that every search sees.

        Raises:
            ServerAway: the database cannot be reached.

        """
        return self._events.applied_seq()

    def within(self, ids: Sequence[int], namespaces: Collection[str]) -> set[int]:
        """Return those of these memories, deleted ones too, that are in these namespaces.

        Raises:
            ServerAway: the database cannot be reached.

        """
        return set(self._store.within([check_id("ids", one) for one in ids], namespaces))

    def erase(
        self,
        *,
        namespace: str | None = None,
        source: str | None = None,
        ids: Iterable[int] | None = None,
        dry_run: bool = True,
        timeout_s: float = 600,
    ) -> ErasureReceipt:
        """Erase memories wherever they are, look again, and say what was found; or with `dry_run` count them.

        Killed at any point, the same call again does the rest. What is enqueued after the call is not erased.

        Args:
            namespace: all of it, or with `source` what it holds from there.
            source: all that came from there, exactly.
            ids: these, without a namespace and a source.
            dry_run: erase nothing.
            timeout_s: how long to wait for the indexer, which writes its snapshots anew.

        Raises:
            InvalidMemory: nothing was chosen, or both ways at once.
            SearchUnavailable: the indexer gave no answer in time. Call again.
            ServerAway: Redis or the database cannot be reached. Call again.

        """
        chosen = selector(namespace=namespace, source=source, ids=ids)
        erasure = Erasure(
            database=self._database,
            stream=self._stream,
            replies=self._replies,
            ask_indexer=lambda: self._let_go(timeout_s=timeout_s),
            search=lambda request: self._search(request, timeout_s=self._settings.search_timeout_s),
        )
        return erasure.count(chosen) if dry_run else erasure.erase(chosen)

    def status(self) -> Status:
        """Return the counts by state, what lags, and the verdict: whether somebody must look."""
        return read_status(self._database, self._watch, limits=Limits.of(self._settings))

    def verdict(self) -> Verdict:
        """Return the verdict alone: cheap, however many memories there are.

        Raises:
            ServerAway: Redis or the database cannot be reached.

        """
        return judge(read_vitals(self._database, self._watch), Limits.of(self._settings))

    @override
    def counts(self, *, namespace: str) -> Counts:
        return self._store.counts(namespace=check_name("namespace", own_or_default(namespace)))

    def verify(self, *, repair: bool = False, timeout_s: float = 600) -> dict[str, Any]:
        """Let the indexer audit its index, the snapshots, the rows, the events and the streams.

        Args:
            repair: mend what is found. What is replaced is kept in the index's quarantine.
            timeout_s: how long to wait for the answer. The audit goes on without anybody waiting.

        Returns:
            A mapping with `clean` and `findings`; of index and database with `equal`, `n_missing`,
            `n_extra`, `n_different` and `examples`; and after a repair with `repair`.

        Raises:
            SearchUnavailable: the indexer gave no answer in time.

        """
        task = TaskName.REPAIR if repair else TaskName.COMPARE
        answer = ask(self._app, self._replies, task, timeout_s=timeout_s)
        if not answer["ok"]:
            raise SearchUnavailable(answer["message"])
        audit: dict[str, Any] = answer["audit"]
        return audit

    def dead_letters(self, *, limit: int = 100, ids: Sequence[int] | None = None) -> list[DeadLetter]:
        """Return dead letters, oldest first; only those of `ids` if given."""
        return self._dead_letters.list(limit=limit, ids=ids)

    def dead_letter(self, letter_id: int) -> DeadLetter:
        """Return one dead letter, with its bytes and its reason.

        Raises:
            NotFound: there is none with this id.

        """
        return self._dead_letters.get(letter_id)

    def retry_dead_letters(self, ids: Sequence[int] | None = None) -> int:
        """Put dead letters back on the stream, all of them for `None`; return how many.

        Killed in the middle, a letter may be both: it is stored once all the same.
        """
        n_retried = 0
        while letters := self._dead_letters.list(limit=500, ids=ids):
            self._stream.push([letter.body for letter in letters], lane="bulk")
            n_retried += self._dead_letters.release([letter.id for letter in letters])
            self._nudger.nudge("embed")
            if ids is None and len(letters) < 500:
                break  # what comes back as a dead letter at once is not retried again
        return n_retried

    def purge_dead_letters(self, ids: Sequence[int] | None = None) -> int:
        """Forget dead letters, all of them for `None`; return how many.

        A stored memory whose new content could not be embedded is deleted with its letter.
        """
        return self._dead_letters.purge(ids)

    def _let_go(self, *, timeout_s: float) -> IndexTraces:
        answer = ask(self._app, self._replies, TaskName.ERASED, timeout_s=timeout_s)
        if not answer["ok"]:
            raise SearchUnavailable(answer["message"])
        return IndexTraces.from_json(answer["traces"])

    def _search(self, request: SearchRequest, *, timeout_s: float) -> list[SearchHit]:
        deadline = time.monotonic() + timeout_s
        while True:
            if request.min_seq is not None:
                self._wait_until_applied(request.min_seq, deadline)
            left_s = max(0.05, deadline - time.monotonic())
            wait_s = min(left_s / 2, _LONGEST_WAIT_IN_INDEXER_S)
            answer = ask(
                self._app, self._replies, TaskName.SEARCH, request.as_json(), wait_s, timeout_s=left_s
            )
            if answer["ok"]:
                return [SearchHit.from_json(hit) for hit in answer["hits"]]
            if answer["error"] == NoReranker.__name__:
                raise NoReranker(answer["message"])
            if answer["error"] != NotYetSearchable.__name__:
                raise SearchUnavailable(answer["message"])
            if time.monotonic() > deadline:  # another indexer took over meanwhile, from a snapshot
                raise NotYetSearchable(answer["message"])

    def _wait_until_applied(self, seq: Seq, deadline: float) -> None:
        pause_s = FIRST_LOOK_S
        while self._events.applied_seq() < seq:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NotYetSearchable(f"write {seq} is not searchable yet")
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, SLOWEST_LOOK_S)
