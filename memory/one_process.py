"""The pipeline's steps in one process: database, model, index and search, shared by its threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from memory.database import Database
from memory.embedding import CheckedEmbedder, EmbeddingModel
from memory.errors import ModelMismatch, ServerAway
from memory.ingestion import Ingestion
from memory.linking import Linking
from memory.local_index import LocalIndex
from memory.reembedding import reembed, tidy
from memory.reranker import Reranker
from memory.revision import Revision
from memory.search import Searcher
from memory.store.associations import Associations
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.embedder import Embedder
    from memory.models import SearchHit
    from memory.search_request import SearchRequest
    from memory.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

DEFAULT_INDEX = "memories.faiss"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSteps:
    """The steps that hang on the embedding model."""

    embedder: Embedder
    ingestion: Ingestion
    revision: Revision
    searcher: Searcher

    def search(self, request: SearchRequest) -> list[SearchHit]:
        """Search, and note what was found as recalled."""
        hits = self.searcher.search(request, wait_s=0)
        try:
            self.searcher.note_recalls()
        except ServerAway as error:  # the answer is there; the next search notes these too
            log.warning("recalls_not_noted", reason=str(error))
        return hits


class OneProcess:
    """Everything that works on one database with one model at a time.

    Args:
        settings: with a database's URL.
        load_model: makes the model, once the database is known to be there.

    Raises:
        ModelMismatch: the stored vectors come from another model.
        ServerAway: the database cannot be reached.

    """

    def __init__(self, settings: Settings, *, load_model: Callable[[], Embedder]) -> None:
        self._settings = settings
        self._model_turn = threading.RLock()
        self._reranker = Reranker(settings.reranker, use_gpu=settings.use_gpu)
        self.database = Database(settings.database_url)
        try:
            self.database.upgrade()
            self.store = MemoryStore(self.database)
            self.associations = Associations(self.database)
            self.linking = Linking(store=self.store, associations=self.associations)
            embedder = load_model()
            self.index = self._open_index(embedder)
            self._steps = self._steps_with(embedder)
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        """Save the index if it is ours, and let everything go."""
        try:
            if self.index.is_owner:
                self.index.save()
        except ModelMismatch as error:  # an index of vectors that no longer count is not worth saving
            log.warning("index_not_saved", reason=str(error))
        finally:
            self.index.release()
            self.database.close()

    def with_model(self, step: Callable[[ModelSteps], T]) -> T:
        """Take a step with the serving model; again each time that `change_model` replaced it meanwhile."""
        while True:
            steps = self._steps
            try:
                return step(steps)
            except ModelMismatch:
                with self._model_turn:
                    if self._steps is steps:
                        raise

    def change_model(self, embedder: Embedder, *, on_progress: Callable[[int, int], None]) -> int:
        """Embed everything again and go over to this model; return how many were embedded."""
        with self._model_turn:
            return reembed(
                self.database,
                embedder,
                on_progress=on_progress,
                on_switched=lambda: self._go_over(embedder),
            )

    def _go_over(self, embedder: Embedder) -> None:
        identity = EventLog(self.database).claim_model(
            fingerprint=embedder.fingerprint, dim=embedder.embedding_dim
        )
        self.index.switch(identity)
        self._steps = self._steps_with(embedder)

    def _open_index(self, embedder: Embedder) -> LocalIndex:
        identity = EventLog(self.database).claim_model(
            fingerprint=embedder.fingerprint, dim=embedder.embedding_dim
        )
        tidy(self.database)
        return LocalIndex(
            _index_directory(self._settings),
            database=self.database,
            identity=identity,
            use_gpu=self._settings.use_gpu,
            snapshot_every_events=self._settings.snapshot_every_events,
            language=self._settings.language,
        )

    def _steps_with(self, embedder: Embedder) -> ModelSteps:
        return ModelSteps(
            embedder=embedder,
            ingestion=Ingestion(store=self.store, embedder=embedder),
            revision=Revision(
                store=self.store, embedder=embedder, max_content_bytes=self._settings.max_content_bytes
            ),
            searcher=Searcher(
                replica=lambda: self.index.current(embedder.fingerprint),
                store=self.store,
                associations=self.associations,
                embed_query=lambda query: embedder.encode([query])[0],
                reranker=self._reranker,
            ),
        )


def load_embedder(settings: Settings, embedding_model: str | Embedder | None = None) -> Embedder:
    """Return the model that is given, or that is named, else the one of the settings.

    Raises:
        SettingsError: it cannot be loaded.

    """
    if embedding_model is not None and not isinstance(embedding_model, str):
        return CheckedEmbedder(embedding_model)
    return EmbeddingModel(
        embedding_model or settings.embedding_model,
        use_gpu=settings.use_gpu,
        n_threads=settings.embed_threads,
        batch_tokens=settings.embed_batch_tokens,
        engine=settings.embedding_engine,
        precision=settings.embedding_precision,
        cache=settings.model_cache,
    )


def _index_directory(settings: Settings) -> Path:
    """Return FAISS_INDEX_PATH, else the place beside the SQLite file, else the working directory."""
    if settings.index_path:
        return settings.index_path
    if not settings.database_url.startswith("sqlite:"):
        return Path(DEFAULT_INDEX).absolute()
    database = Path(settings.database_url.removeprefix("sqlite:///"))
    return database.with_suffix(".faiss") if database.suffix == ".db" else Path(f"{database}.faiss")
