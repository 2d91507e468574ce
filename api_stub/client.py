"""The client: what a program calls to remember, to wait, to search and to forget."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from api_stub.home import connected_settings
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
from memory.messages import DEFAULT_NAMESPACE, raw_memory, raw_of
from memory.models import (
    Memory,
    MemoryAssociation,
    MemoryId,
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
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from memory.settings import Settings

_FIRST_LOOK_S = 0.003
_SLOWEST_LOOK_S = 0.25
_LONGEST_WAIT_IN_INDEXER_S = 2.0


class MemoryClient:
    """Talks to a running pipeline. Safe to share between threads; not across a fork.

    Three different states are three different calls: `enqueue` returns when a memory is *accepted*
    (Redis has it), `wait` when it is *searchable* (or dead), and `get` reads what is *stored*.
    """

    def __init__(self, settings: Settings) -> None:
        log_as_a_library()
        self._settings = settings
        self._database = Database(settings.database_url)
        self._store = MemoryStore(self._database)
        self._dead_letters = DeadLetters(self._database)
        self._linking = Linking(store=self._store, associations=Associations(self._database))
        self._stream = IngestStream(
            settings.redis_database_url("ingest"),
            max_waiting=settings.max_waiting,
            fsync=settings.durability == "fsync",
        )
        self._watch = StreamWatch(settings.redis_database_url("ingest"))
        self._replies = Replies(settings.redis_database_url("results"))
        self._app = make_celery(settings)
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

    @classmethod
    def from_env(cls) -> Self:
        """Connect to the servers that the environment names, else to the stack of MEMORY_HOME.

        Raises:
            SettingsError: a setting has a bad value.
            NoStack: neither is there; says how to start one.

        """
        return cls(connected_settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._nudger.close()
        self._stream.close()
        self._watch.close()
        self._replies.close()
        self._app.close()
        self._database.close()

    def enqueue(
        self,
        content: str,
        *,
        memory_type: MemoryType | str = MemoryType.EPISODIC,
        source: str = "user",
        metadata: dict[str, Any] | None = None,
        uid: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        created_at: Any = None,
    ) -> Receipt:
        """Hand over one memory, ahead of every bulk import. It is accepted when this returns.

        Args:
            content: text, at most MEMORY_MAX_CONTENT_BYTES.
            memory_type: a `MemoryType` or its name in any case.
            source: where it comes from.
            metadata: a JSON object; its `importance` is a number in 0..1.
            uid: the idempotency key: a memory is stored once for each (namespace, uid).
            namespace: whose memory it is; searches see one namespace.
            created_at: an aware datetime or ISO 8601 text; now where absent.

        Raises:
            InvalidMemory: names the field, the value and what is allowed.
            QueueFull: too much is waiting; says when to try again.
            ServerAway: Redis cannot be reached; try again under the same uid.

        """
        raw = raw_memory(
            content,
            max_content_bytes=self._settings.max_content_bytes,
            memory_type=memory_type,
            source=source,
            metadata=metadata,
            uid=uid,
            namespace=namespace,
            created_at=created_at,
        )
        return self.producer.enqueue(raw)

    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float = 60) -> Enqueued:
        """Hand over many memories, behind what waits already. Returns their receipts, in order.

        Args:
            drafts: mappings with `content` and any of the other arguments of `enqueue`, or just texts.
                A bad one is refused and listed in `.rejected`, the rest goes on.
            patience_s: how long to wait for room each time the queue is full.

        Raises:
            QueueFull: there was no room in time. What was accepted before stays accepted.
            ServerAway: Redis cannot be reached; hand over the same again, under the same uids.

        """
        return self.producer.enqueue_many(drafts, patience_s=patience_s)

    @overload
    def wait(self, receipts: Receipt, timeout_s: float = ...) -> Outcome: ...
    @overload
    def wait(self, receipts: Iterable[Receipt], timeout_s: float = ...) -> list[Outcome]: ...
    def wait(self, receipts: Receipt | Iterable[Receipt], timeout_s: float = 30) -> Outcome | list[Outcome]:
        """Wait until each memory is searchable, dead or deleted; return how far each has come.

        Where time runs out, an outcome says so by its state, `accepted` or `stored`. A searchable
        outcome's `seq` may be given to `search(min_seq=…)`.
        """
        if isinstance(receipts, Receipt):
            return self._wait([receipts], timeout_s)[0]
        return self._wait(list(receipts), timeout_s)

    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        """Return how far each of these memories has come, in their order, without waiting."""
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

    def search(
        self,
        query: str,
        *,
        min_seq: int | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        """Return the most relevant live memories of a namespace, best first.

        Args:
            query: text.
            min_seq: the write that must be seen (of an `Outcome`, or returned by `delete`).
            timeout_s: how long to wait; MEMORY_SEARCH_TIMEOUT_S where absent.
            options: those of `memory.search_request.SearchOptions`, which says what each means.

        Raises:
            InvalidMemory: an argument is not allowed; names it.
            NotYetSearchable: the write of `min_seq` was not searchable in time.
            NoReranker: `rerank` was asked for, and MEMORY_RERANKER names no usable model.
            SearchUnavailable: nobody answered in time.

        """
        request = search_request(
            query,
            max_content_bytes=self._settings.max_content_bytes,
            min_seq=min_seq,
            options=options,
        )
        return self._search(request, timeout_s=timeout_s or self._settings.search_timeout_s)

    def get(self, memory_id: int) -> Memory:
        """Return a stored memory by its id.

        Raises:
            NotFound: there is none, or it was deleted.

        """
        return self._store.get(MemoryId(memory_id))

    def get_by_uid(self, uid: str, *, namespace: str = DEFAULT_NAMESPACE) -> Memory:
        """Return a stored memory by its idempotency key.

        Raises:
            NotFound: there is none (yet), or it was deleted.

        """
        return self._store.get_by_uid(uid, namespace=namespace)

    def context(self, memory_id: int, *, before: int = 2, after: int = 2) -> list[Memory]:
        """Return a stored memory with its neighbours in its conversation, in their order.

        A conversation is what has the same namespace and source, and `position` in its metadata, as every
        imported message has; a memory without a position has no neighbours.

        Args:
            memory_id: of a live memory.
            before: at most so many that come before it, 0..100.
            after: at most so many that come after it, 0..100.

        Raises:
            NotFound: there is none, or it was deleted.
            InvalidMemory: `before` or `after` is not allowed.

        """
        before = check_whole("before", before, low=0, high=MAX_CONTEXT)
        after = check_whole("after", after, low=0, high=MAX_CONTEXT)
        return self._store.context(MemoryId(memory_id), before=before, after=after)

    def update(
        self,
        memory_id: int,
        *,
        content: str | None = None,
        memory_type: MemoryType | str | None = None,
        source: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Receipt:
        """Change what is given of a stored memory, leave the rest; its id, uid and dates stay.

        The change is stored when this returns. A new content is embedded behind it: no search finds the
        memory, by its old content or the new one, until `wait` says that it is searchable.

        Args:
            memory_id: of a live memory.
            content: its new text.
            memory_type: its new type.
            source: its new source.
            metadata: merged into what is there as by RFC 7396: given keys are set, `None` removes one.

        Raises:
            NotFound: there is none, or it was deleted.
            InvalidMemory: names the field, its value and what is allowed. Nothing was changed.
            ServerAway: the database cannot be reached. Nothing was changed, or all of it.

        """
        revised = self._revision.revise(
            MemoryId(memory_id), content=content, memory_type=memory_type, source=source, metadata=metadata
        )
        raw = raw_of(revised)
        if content is not None:
            self.producer.push_stored([raw], lane="fast")
        self._nudger.nudge("index")
        return raw.receipt

    def list_memories(
        self,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        memory_types: Iterable[MemoryType | str] | MemoryType | str | None = None,
        where: Mapping[str, Any] | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        """Return stored memories, searchable yet or not, newest first.

        Args:
            namespace: whose.
            memory_types: only these types.
            where: only what meets these conditions: see `memory.filters.check_where`.
            after: the id of the last one of the page before.
            limit: how many at most, 1..1000.

        Raises:
            InvalidMemory: an argument is not allowed; names it.
            ServerAway: the database cannot be reached.

        """
        return self._store.page(
            check_name("namespace", namespace),
            check_types(memory_types),
            None if where is None else check_where(where),
            after=None if after is None else check_id("after", after),
            limit=check_limit(limit),
        )

    def associate(
        self,
        memory_id: int,
        related_memory_id: int,
        relationship_type: str,
        *,
        strength: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryAssociation:
        """Link one stored memory to another: see `memory.linking.Linking.link`."""
        return self._linking.link(
            memory_id,
            related_memory_id,
            relationship_type=relationship_type,
            strength=strength,
            metadata=metadata,
        )

    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        """Remove the link of this type from the one to the other, or all of them; return how many."""
        return self._linking.unlink(memory_id, related_memory_id, relationship_type=relationship_type)

    def related(
        self,
        memory_id: int,
        *,
        relationship_type: str | None = None,
        min_strength: float = 0.0,
        direction: str = "both",
        depth: int = 1,
    ) -> list[Related]:
        """Return what is related to a stored memory: see `memory.linking.Linking.related`."""
        return self._linking.related(
            memory_id,
            relationship_type=relationship_type,
            min_strength=min_strength,
            direction=direction,
            depth=depth,
        )

    def delete(self, memory_id: int) -> Seq:
        """Delete a memory: no search returns it from now on, and it never comes back under its uid.

        Returns the removal's sequence number.

        Raises:
            NotFound: there is none, or it was deleted already.

        """
        seq = self._store.delete(MemoryId(memory_id))
        self._nudger.nudge("index")
        return seq

    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        """Forget what is both old and unimportant, or with `dry_run` count it.

        Raises:
            CleanupBraked: it would remove suspiciously much, and `force` is not set.

        """
        report = clean_up(self._database, policy, dry_run=dry_run, force=force)
        if report.deleted:
            self._nudger.nudge("index")
        return report

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

    def counts(self, *, namespace: str) -> Counts:
        """Count a namespace's memories by state.

        Raises:
            ServerAway: the database cannot be reached.

        """
        return self._store.counts(namespace=check_name("namespace", namespace))

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

    def _wait(self, receipts: list[Receipt], timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        pause_s = _FIRST_LOOK_S
        settled: dict[int, Outcome] = {}
        open_ = list(range(len(receipts)))
        while True:
            settled |= zip(open_, self.outcomes([receipts[i] for i in open_]), strict=True)
            open_ = [i for i in open_ if not settled[i].settled]
            if not open_ or time.monotonic() >= deadline:
                return [settled[i] for i in range(len(receipts))]
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(pause_s * 1.5, _SLOWEST_LOOK_S)

    def _let_go(self, *, timeout_s: float) -> IndexTraces:
        answer = ask(self._app, self._replies, TaskName.ERASED, timeout_s=timeout_s)
        if not answer["ok"]:
            raise SearchUnavailable(answer["message"])
        return IndexTraces.from_json(answer["traces"])

    def _search(self, request: SearchRequest, *, timeout_s: float) -> list[SearchHit]:
        deadline = time.monotonic() + timeout_s
        while True:
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
            if time.monotonic() + _LONGEST_WAIT_IN_INDEXER_S > deadline:
                raise NotYetSearchable(answer["message"])
