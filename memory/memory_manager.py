"""The memory of one program: the pipeline's store, embedding, index and search, in a single process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from memory.cleanup import CleanupPolicy, clean_up
from memory.errors import InvalidMemory, ManagerClosed, NotFound
from memory.logs import log_as_a_library
from memory.messages import DEFAULT_NAMESPACE, from_mapping, raw_memory
from memory.models import Memory, MemoryAssociation, MemoryType
from memory.one_process import OneProcess, load_embedder
from memory.results import CleanupStats, RelatedMemory, SearchResult, relationship_of, result_of
from memory.search_request import FurtherOptions, search_request
from memory.settings import Settings, read_settings
from memory.validation import MAX_CONTEXT, check_id, check_name, check_number, check_types, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from types import TracebackType

    from memory.embedder import Embedder
    from memory.index_comparison import Comparison
    from memory.messages import RawMemory

DEFAULT_DB_URL = "sqlite:///memories.db"


class MemoryManager:
    """Remembers, searches, relates and forgets, on SQLite or Postgres, with no server of its own.

    What a call has returned is committed: killed at any moment, the next open finds it. A search sees
    every change committed before it began, by whichever process. Safe to share between threads; not
    across a fork. Several processes may open the same database: the first one owns the index directory
    and saves there, the others keep an index of their own in memory.

    Args:
        db_url: `sqlite:///path`, `postgresql://user:password@host/name`; else MEMORY_DB_URL, else
            `sqlite:///memories.db` in the working directory. Tables are made, or upgraded.
        embedding_model: a name or directory of a sentence-transformers model, or an object with
            `encode`, `embedding_dim` and `fingerprint` that threads may share; else EMBEDDING_MODEL.
        faiss_index_path: directory of the index's snapshots; else FAISS_INDEX_PATH, else beside the
            SQLite file (`memories.db`: `memories.faiss`), or `memories.faiss` in the working directory.

    Raises:
        SettingsError: a setting or argument has a bad value, the model cannot be loaded, or USE_GPU is
            set and there is none; says what is missing.
        ModelMismatch: the stored vectors come from another model; names both, and what to do.
        ServerAway: the database cannot be reached.

    """

    def __init__(
        self,
        db_url: str | None = None,
        embedding_model: str | Embedder | None = None,
        faiss_index_path: str | Path | None = None,
    ) -> None:
        log_as_a_library()
        self._settings = _read_settings(db_url, embedding_model, faiss_index_path)
        self._closed = False
        self._process = OneProcess(
            self._settings, load_model=lambda: load_embedder(self._settings, embedding_model)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Save the index, if this process owns it, and close everything. Again is harmless.

        Raises:
            SnapshotFailed: the disk did not take the index. No memory is lost: the next open makes it anew.
            ServerAway: the database cannot be reached; likewise.

        """
        if self._closed:
            return
        self._closed = True
        self._process.close()

    @property
    def owns_index(self) -> bool:
        """Whether this process saves the index; otherwise another one does, and this one follows."""
        return self._open_process().index.is_owner

    def save_index(self) -> None:
        """Save the index now: whole or not at all, so that a kill never tears it.

        Raises:
            IndexInUse: another process owns it.
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        self._open_process().index.save()

    def add_memory(
        self,
        content: str,
        memory_type: MemoryType | str,
        source: str = "user",
        metadata: Mapping[str, Any] | None = None,
        *,
        uid: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        created_at: datetime | str | None = None,
    ) -> Memory:
        """Remember one memory. It is stored and searchable when this returns.

        Args:
            content: text, not blank, at most MEMORY_MAX_CONTENT_BYTES.
            memory_type: a `MemoryType` or its name in any case.
            source: where it comes from.
            metadata: a JSON object; its `importance`, 0..1, is the memory's; absent counts as 0.5.
            uid: idempotency key: a memory that is there under it already is returned as it is.
            namespace: whose memory it is; searches see one namespace.
            created_at: an aware datetime or ISO 8601 text; now where absent.

        Raises:
            InvalidMemory: names the field, its value and what is allowed.
            NotFound: the memory of this uid was deleted, and stays so.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

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
        return self._add([raw])[0]

    def add_memories(self, memories: Iterable[Mapping[str, Any]]) -> list[Memory]:
        """Remember many memories, all or none, in one transaction. Ids need not ascend in the order given.

        Args:
            memories: each a mapping with `content` and any other argument of `add_memory`; without a
                `memory_type` it is episodic. Where a uid comes twice, the first one counts.

        Returns:
            The memories, in the order given.

        Raises:
            InvalidMemory: names the position, the field, its value and what is allowed. Nothing was stored.
            NotFound: the memory of one of the uids was deleted, and stays so. Nothing was stored.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

        """
        return self._add([self._draft(n, draft) for n, draft in enumerate(memories)])

    def get_memory(self, memory_id: int) -> Memory | None:
        """Return the memory of this id, `None` if there is none or it was deleted."""
        try:
            return self._open_process().store.get(check_id("memory_id", memory_id))
        except NotFound:
            return None

    def get_context(self, memory_id: int, before: int = 2, after: int = 2) -> list[Memory]:
        """Return a memory with its neighbours in its conversation, in their order.

        A conversation is what has the same namespace and source, and `position` in its metadata; a memory
        without a position has no neighbours.

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
        middle = check_id("memory_id", memory_id)
        return self._open_process().store.context(middle, before=before, after=after)

    def update_memory(
        self,
        memory_id: int,
        content: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        memory_type: MemoryType | str | None = None,
        source: str | None = None,
    ) -> Memory:
        """Change what is given and leave the rest; return the memory as it is then. Its id stays.

        Args:
            memory_id: a live memory.
            content: its new text. It is embedded again, and the next search finds it by that.
            metadata: merged into what is there (RFC 7396): given keys are set, `None` removes one.
            memory_type: its new type.
            source: its new source.

        Raises:
            NotFound: there is no such live memory.
            InvalidMemory: names the field, its value and what is allowed. Nothing was changed.
            ServerAway: the database cannot be reached. Nothing was changed, or all of it.

        """
        memory = self._open_process().with_model(
            lambda steps: steps.revision.revise(
                check_id("memory_id", memory_id),
                content=content,
                metadata=metadata,
                memory_type=memory_type,
                source=source,
            )
        )
        self._open_process().index.hurry()
        return memory

    def delete_memory(self, memory_id: int) -> bool:
        """Delete a memory, its vector and its associations, for good; return whether it was there.

        Raises:
            ServerAway: the database cannot be reached. Nothing was deleted, or all of it.

        """
        try:
            self._open_process().store.delete(check_id("memory_id", memory_id))
        except NotFound:
            return False
        self._open_process().index.hurry()
        return True

    def search_memories(
        self,
        query: str,
        memory_types: Sequence[MemoryType | str] | MemoryType | str | None = None,
        limit: int = 5,
        min_score: float = -1.0,
        **options: Unpack[FurtherOptions],
    ) -> list[SearchResult]:
        """Search, most relevant first. If `limit` memories match the filters, so many come back.

        What is found counts as used: its `last_accessed` is set, at most once an hour.

        Args:
            query: what to look for, not blank.
            memory_types: only of these types; all where absent.
            limit: how many at most, 1..1000.
            min_score: none below it, -1..1.
            options: those of `memory.search_request.FurtherOptions`, which says what each means.

        Raises:
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached.

        """
        request = search_request(
            query,
            max_content_bytes=self._settings.max_content_bytes,
            options={**options, "memory_types": memory_types, "limit": limit, "min_score": min_score},
        )
        return [
            result_of(hit) for hit in self._open_process().with_model(lambda steps: steps.search(request))
        ]

    def add_memory_association(
        self,
        memory_id: int,
        related_memory_id: int,
        relationship_type: str,
        strength: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryAssociation:
        """Link one memory to another. One of this type between them, in this direction, is updated.

        Args:
            memory_id: from.
            related_memory_id: to; another memory of the same namespace.
            relationship_type: any name, such as `caused_by`.
            strength: 0..1.
            metadata: a JSON object.

        Raises:
            NotFound: one of the two is not there, or was deleted.
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached.

        """
        return self._open_process().linking.link(
            memory_id,
            related_memory_id,
            relationship_type=relationship_type,
            strength=strength,
            metadata=metadata,
        )

    def delete_memory_association(
        self, memory_id: int, related_memory_id: int, relationship_type: str | None = None
    ) -> int:
        """Remove the link of this type from the one to the other, or all of them; return how many."""
        return self._open_process().linking.unlink(
            memory_id, related_memory_id, relationship_type=relationship_type
        )

    def get_related_memories(
        self,
        memory_id: int,
        relationship_type: str | None = None,
        min_strength: float = 0.0,
        *,
        direction: str = "both",
        depth: int = 1,
    ) -> list[RelatedMemory]:
        """Return the memories related to this one, the strongest first.

        Every association with the memory itself is listed. A memory that is only reached over others is
        listed once, by its strongest walk; a walk's strength is the product of its steps' strengths.

        Args:
            memory_id: a live memory.
            relationship_type: only along associations of this type.
            min_strength: 0..1; nothing weaker, over the whole walk.
            direction: "outgoing" (from the memory on), "incoming" (towards it) or "both".
            depth: steps at most, 1..10.

        Raises:
            NotFound: there is no such live memory.
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached.

        """
        found = self._open_process().linking.related(
            memory_id,
            relationship_type=relationship_type,
            min_strength=min_strength,
            direction=direction,
            depth=depth,
        )
        return [RelatedMemory(memory=one.memory, relationship=relationship_of(one.relation)) for one in found]

    def cleanup_old_memories(
        self,
        max_age_days: float = 30,
        min_importance: float = 0.3,
        memory_types: Sequence[MemoryType | str] | MemoryType | str | None = None,
        dry_run: bool = True,
        *,
        namespace: str | None = None,
        force: bool = False,
    ) -> CleanupStats:
        """Forget what is both older than `max_age_days` and less important than `min_importance`.

        Age counts from the last search that found it, else from creation, by the database's clock. A
        memory without an importance counts as 0.5. With `dry_run`, as by default, it only counts.

        Args:
            max_age_days: 0 or more.
            min_importance: 0..1.
            memory_types: only of these types; all where absent.
            dry_run: change nothing.
            namespace: only here; everywhere where absent.
            force: past the brake.

        Raises:
            CleanupBraked: more than a fifth of a namespace and more than 1,000 of its memories would go
                (MEMORY_CLEANUP_BRAKE_SHARE, MEMORY_CLEANUP_BRAKE_COUNT). Nothing was removed.
            InvalidMemory: names the argument, its value and what is allowed.
            ServerAway: the database cannot be reached; what was removed before is gone.

        """
        policy = CleanupPolicy(
            max_age_days=check_number("max_age_days", max_age_days, low=0, high=36_500),
            min_importance=check_number("min_importance", min_importance, low=0, high=1),
            memory_types=check_types(memory_types),
            namespace=None if namespace is None else check_name("namespace", namespace),
            brake_share=self._settings.cleanup_brake_share,
            brake_count=self._settings.cleanup_brake_count,
        )
        report = clean_up(self._open_process().database, policy, dry_run=dry_run, force=force)
        self._open_process().index.hurry()
        return CleanupStats(total_found=report.total_found, deleted=report.deleted, skipped=report.skipped)

    def reembed(
        self,
        embedding_model: str | Embedder,
        *,
        on_progress: Callable[[int, int], None] = lambda _done, _left: None,
    ) -> int:
        """Embed everything again with another model and go over to it; return how many were embedded.

        The old vectors serve until the last new one is there; then all searches go over at once. Killed
        meanwhile, it goes on from there when it is called again. Other processes on this database must
        be started again with the new model afterwards; until then it refuses them.

        Args:
            embedding_model: a name or directory, or a model object, as at the start.
            on_progress: called now and then with (embedded by this call, left).

        Raises:
            SettingsError: the model cannot be loaded.
            ModelMismatch: another process has begun to embed with yet another model.
            ServerAway: the database cannot be reached; call it again to go on.

        """
        process = self._open_process()
        return process.change_model(load_embedder(self._settings, embedding_model), on_progress=on_progress)

    def verify(self) -> Comparison:
        """Compare the index with the database: every id, and up to 1,000 vectors byte by byte."""
        return self._open_process().index.compare()

    def _draft(self, position: int, draft: object) -> RawMemory:
        given = dict(draft) if isinstance(draft, Mapping) else draft
        try:
            return from_mapping(given, max_content_bytes=self._settings.max_content_bytes)
        except InvalidMemory as error:
            raise error.within(f"memories[{position}]") from None

    def _add(self, raws: Sequence[RawMemory]) -> list[Memory]:
        process = self._open_process()
        for namespace, uid in process.store.buried(raw.key for raw in raws):
            message = f"the memory with uid {uid!r} in namespace {namespace!r} was deleted, and stays so"
            raise NotFound(message)
        new = process.with_model(lambda steps: steps.ingestion.store(raws)).new
        process.index.hurry()
        added = {raw.key: raw.stored_as(new[raw.key]) for raw in reversed(raws) if raw.key in new}
        found = process.store.by_keys(raw.key for raw in raws if raw.key not in new) | added
        return [
            found.get(raw.key) or process.store.get_by_uid(raw.uid, namespace=raw.namespace) for raw in raws
        ]

    def _open_process(self) -> OneProcess:
        if self._closed:
            message = "this MemoryManager was closed: open another one"
            raise ManagerClosed(message)
        return self._process


def _read_settings(
    db_url: str | None, embedding_model: str | Embedder | None, faiss_index_path: str | Path | None
) -> Settings:
    """Read the environment; arguments win over it, and the library's default database comes last."""
    name = embedding_model if isinstance(embedding_model, str) else None
    arguments = {"db_url": db_url, "embedding_model": name, "index_path": faiss_index_path}
    given = {field: value for field, value in arguments.items() if value is not None}
    settings = read_settings(**given)
    return settings if settings.db_url else read_settings(**given, db_url=DEFAULT_DB_URL)
