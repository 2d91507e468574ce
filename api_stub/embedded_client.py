"""The client with a memory of its own: one process, one database, no server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from typing_extensions import override

from api_stub.client import MemoryClient, own_or_default
from ingest.producer import Draft, Enqueued, Rejected, chunks, refusal, validated
from memory.cleanup import CleanupPolicy, CleanupReport, clean_up
from memory.errors import InvalidMemory
from memory.filters import check_where
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
from memory.one_process import OneProcess, load_embedder
from memory.search_request import SearchOptions, search_request
from memory.validation import MAX_CONTEXT, check_id, check_limit, check_name, check_types, check_whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from memory.messages import RawMemory
    from memory.settings import Settings
    from memory.store.memories import Counts


class EmbeddedClient(MemoryClient):
    """Does all by itself, as `MemoryManager` does: what is accepted is stored and searchable at once.

    Args:
        settings: with a database's URL, `sqlite:///…` or Postgres.

    Raises:
        SettingsError: the model cannot be loaded.
        ModelMismatch: the stored vectors come from another model.
        ServerAway: the database cannot be opened.

    """

    def __init__(self, settings: Settings) -> None:
        log_as_a_library()
        self._settings = settings
        self._process = OneProcess(settings, load_model=lambda: load_embedder(settings))

    @override
    def close(self) -> None:
        self._process.close()

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
        self._store([raw])
        return raw.receipt

    @override
    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float = 60) -> Enqueued:
        receipts: list[Receipt] = []
        rejected: list[Rejected] = []
        for chunk in chunks(self._valid(drafts, rejected)):
            self._store(chunk)
            receipts.extend(raw.receipt for raw in chunk)
        return Enqueued(receipts=tuple(receipts), rejected=tuple(rejected))

    @override
    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        keys = [(receipt.namespace, receipt.uid) for receipt in receipts]
        rows = self._process.store.progress(keys)
        found: list[Outcome] = []
        for receipt, key in zip(receipts, keys, strict=True):
            if row := rows.get(key):
                state = MemoryState.DELETED if row.deleted else MemoryState.SEARCHABLE
                found.append(Outcome(receipt=receipt, state=state, id=row.memory_id, seq=row.seq))
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
            query, max_content_bytes=self._settings.max_content_bytes, min_seq=min_seq, options=options
        )
        return self._process.with_model(lambda steps: steps.search(request))

    @override
    def get(self, memory_id: int, *, namespaces: Collection[str] | None = None) -> Memory:
        return self._process.store.get(check_id("memory_id", memory_id), namespaces=namespaces)

    @override
    def get_by_uid(self, uid: str, *, namespace: str | None = None) -> Memory:
        namespace = check_name("namespace", own_or_default(namespace))
        return self._process.store.get_by_uid(check_name("uid", uid), namespace=namespace)

    @override
    def context(self, memory_id: int, *, before: int = 2, after: int = 2) -> list[Memory]:
        return self._process.store.context(
            check_id("memory_id", memory_id),
            before=check_whole("before", before, low=0, high=MAX_CONTEXT),
            after=check_whole("after", after, low=0, high=MAX_CONTEXT),
        )

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
        revised = self._process.with_model(
            lambda steps: steps.revision.revise(
                check_id("memory_id", memory_id),
                content=content,
                memory_type=memory_type,
                source=source,
                metadata=metadata,
            )
        )
        self._process.index.hurry()
        return raw_of(revised).receipt

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
        return self._process.store.page(
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
        return self._process.linking.link(
            memory_id,
            related_memory_id,
            relationship_type=relationship_type,
            strength=strength,
            metadata=metadata,
        )

    @override
    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        return self._process.linking.unlink(memory_id, related_memory_id, relationship_type=relationship_type)

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
        return self._process.linking.related(
            memory_id,
            relationship_type=relationship_type,
            min_strength=min_strength,
            direction=direction,
            depth=depth,
        )

    @override
    def delete(self, memory_id: int) -> Seq:
        seq = self._process.store.delete(check_id("memory_id", memory_id))
        self._process.index.hurry()
        return seq

    @override
    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        report = clean_up(self._process.database, policy, dry_run=dry_run, force=force)
        self._process.index.hurry()
        return report

    @override
    def counts(self, *, namespace: str | None = None) -> Counts:
        found = self._process.store.counts(namespace=check_name("namespace", own_or_default(namespace)))
        return replace(found, searchable=found.stored, pending=0)

    def _store(self, raws: Sequence[RawMemory]) -> None:
        self._process.with_model(lambda steps: steps.ingestion.store(raws))
        self._process.index.hurry()

    def _valid(self, drafts: Iterable[Draft], rejected: list[Rejected]) -> Iterator[RawMemory]:
        for position, draft in enumerate(drafts):
            try:
                yield validated(draft, max_content_bytes=self._settings.max_content_bytes)
            except InvalidMemory as error:
                rejected.append(refusal(position, error))
