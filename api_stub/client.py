"""The client: what a program calls to remember, to wait, to search and to forget."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from api_stub.home import connected_settings
from memory.messages import DEFAULT_NAMESPACE
from memory.models import MemoryType, Receipt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    from api_stub.http_client import HttpClient
    from api_stub.pipeline_client import PipelineClient
    from ingest.producer import Draft, Enqueued
    from memory.cleanup import CleanupPolicy, CleanupReport
    from memory.models import Memory, MemoryAssociation, Outcome, Related, SearchHit, Seq
    from memory.search_request import SearchOptions
    from memory.store.memories import Counts

FIRST_LOOK_S = 0.003
SLOWEST_LOOK_S = 0.25


class MemoryClient(ABC):
    """Remembers, waits, searches and forgets. Safe to share between threads; not across a fork.

    Three different states are three different calls: `enqueue` returns when a memory is *accepted*,
    `wait` when it is *searchable* (or dead), and `get` reads what is *stored*.

    What it speaks to is chosen by how it is made: `from_env` straight to Redis and the database, `from_url`
    to an HTTP API; an `EmbeddedClient` has a memory of its own. All have these methods; the first two also
    have `erase`, and the first one what its operator needs.
    """

    @staticmethod
    def from_env() -> PipelineClient:
        """Connect to the servers that the environment names, else to the stack of MEMORY_HOME.

        Raises:
            SettingsError: a setting has a bad value.
            NoStack: neither is there; says how to start one.

        """
        from api_stub.pipeline_client import PipelineClient  # noqa: PLC0415 (it is one of these)

        return PipelineClient(connected_settings())

    @staticmethod
    def from_url(url: str, *, key: str | None = None) -> HttpClient:
        """Speak to an HTTP API. No request is made yet.

        Args:
            url: where `memory api` answers, such as `https://memory.example`.
            key: one of `memory keys create`; MEMORY_API_KEY where absent.

        Raises:
            SettingsError: the URL is none.

        """
        from api_stub.http_client import HttpClient  # noqa: PLC0415 (it is one of these)

        return HttpClient(url, key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
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
        """Hand over one memory, ahead of every bulk import. It is accepted when this returns.

        Args:
            content: text, at most MEMORY_MAX_CONTENT_BYTES.
            memory_type: a `MemoryType` or its name in any case.
            source: where it comes from.
            metadata: a JSON object; its `importance` is a number in 0..1.
            uid: the idempotency key: a memory is stored once for each (namespace, uid).
            namespace: whose memory it is; searches see one namespace. `default` where absent, or over HTTP
                the only one of the key.
            created_at: an aware datetime or ISO 8601 text; now where absent.

        Raises:
            InvalidMemory: names the field, the value and what is allowed.
            QueueFull: too much is waiting; says when to try again.
            ServerAway: Redis cannot be reached; try again under the same uid.

        """

    @abstractmethod
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

    @abstractmethod
    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        """Return how far each of these memories has come, in their order, without waiting."""

    @abstractmethod
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

    @abstractmethod
    def get(self, memory_id: int, *, namespaces: Collection[str] | None = None) -> Memory:
        """Return a stored memory by its id; with `namespaces`, only one that is in any of these.

        Raises:
            NotFound: there is none, or it was deleted, or is elsewhere.

        """

    @abstractmethod
    def get_by_uid(self, uid: str, *, namespace: str | None = None) -> Memory:
        """Return a stored memory by its idempotency key.

        Raises:
            NotFound: there is none (yet), or it was deleted.

        """

    @abstractmethod
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

    @abstractmethod
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

    @abstractmethod
    def list_memories(
        self,
        *,
        namespace: str | None = None,
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

    @abstractmethod
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

    @abstractmethod
    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        """Remove the link of this type from the one to the other, or all of them; return how many."""

    @abstractmethod
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

    @abstractmethod
    def delete(self, memory_id: int) -> Seq:
        """Delete a memory: no search returns it from now on, and it never comes back under its uid.

        Returns the removal's sequence number.

        Raises:
            NotFound: there is none, or it was deleted already.

        """

    @abstractmethod
    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        """Forget what is both old and unimportant, or with `dry_run` count it.

        Raises:
            CleanupBraked: it would remove suspiciously much, and `force` is not set.

        """

    @abstractmethod
    def counts(self, *, namespace: str) -> Counts:
        """Count a namespace's memories by state.

        Raises:
            ServerAway: the database cannot be reached.

        """

    def _wait(self, receipts: list[Receipt], timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        pause_s = FIRST_LOOK_S
        settled: dict[int, Outcome] = {}
        open_ = list(range(len(receipts)))
        while True:
            settled |= zip(open_, self.outcomes([receipts[i] for i in open_]), strict=True)
            open_ = [i for i in open_ if not settled[i].settled]
            if not open_ or time.monotonic() >= deadline:
                return [settled[i] for i in range(len(receipts))]
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(pause_s * 1.5, SLOWEST_LOOK_S)


def own_or_default(namespace: str | None) -> str:
    """Return the namespace that is meant where none is given."""
    return DEFAULT_NAMESPACE if namespace is None else namespace
