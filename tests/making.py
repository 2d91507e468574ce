"""Makes the parts that tests need, from real pieces."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memory.boosts import Boosts
from memory.database import Database
from memory.faiss_index import EXACT_UP_TO
from memory.index_sync import IndexSync
from memory.ingestion import Ingestion
from memory.messages import RawMemory, raw_memory
from memory.models import SearchMode
from memory.postings import Text
from memory.reranker import Reranker
from memory.search import Searcher
from memory.search_request import SearchRequest
from memory.snapshot import SnapshotFolder
from memory.store.associations import Associations
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from tests.fakes import WordEmbedder


def raw(content: str = "a memory", **fields: Any) -> RawMemory:
    """A valid raw memory."""
    return raw_memory(content, max_content_bytes=10_000, **fields)


def store_all(database: Database, *raws: RawMemory, embedder: WordEmbedder | None = None) -> list[int]:
    """Store raw memories; return their ids in order."""
    Ingestion(store=MemoryStore(database), embedder=embedder or WordEmbedder()).store(raws)
    progress = MemoryStore(database).progress([r.key for r in raws])
    return [progress[r.key].memory_id for r in raws]


def open_index(
    database: Database, home: Path, *, owner: str = "test", exact_up_to: int = EXACT_UP_TO
) -> IndexSync:
    """Own the index of a database, with its snapshots under `home`."""
    identity = EventLog(database).claim_model(
        fingerprint=WordEmbedder.fingerprint, dim=WordEmbedder.embedding_dim
    )
    return IndexSync.open(
        database=database,
        folder=SnapshotFolder(home / "index"),
        identity=identity,
        owner=owner,
        exact_up_to=exact_up_to,
    )


def caught_up(sync: IndexSync) -> IndexSync:
    """Apply every event there is."""
    while sync.apply_next():
        pass
    return sync


def searcher(sync: IndexSync, database: Database) -> Searcher:
    """A searcher over this index."""
    return Searcher(
        replica=lambda: sync.replica,
        store=MemoryStore(database),
        associations=Associations(database),
        embed_query=lambda text: WordEmbedder().encode([text])[0],
        reranker=Reranker(None),
    )


def text_of(memory_id: int, *, namespace: str = "default", content: str = "a memory") -> Text:
    """What the index needs of a memory's words."""
    return Text(
        memory_id=memory_id,
        namespace=namespace,
        content=content,
        author=None,
        source="user",
        position=None,
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )


def request(query: str, **fields: Any) -> SearchRequest:
    """A search request with the usual defaults, by vectors alone: their scores are known."""
    given: dict[str, Any] = {
        "namespace": "default",
        "memory_types": None,
        "limit": 5,
        "min_score": -1.0,
        "min_seq": None,
        "mode": SearchMode.VECTOR,
        "boosts": Boosts(now=datetime(2026, 1, 1, tzinfo=UTC)),
    }
    return SearchRequest(query=query, **{**given, **fields})
