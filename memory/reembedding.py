"""Replaces the embedding model: everything is embedded again beside the old vectors, then switched."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import structlog

from memory.embedder import embed_whole
from memory.errors import InvalidMemory, ServerAway, SettingsError
from memory.store.generations import Generations, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from memory.database import Database
    from memory.embedder import Embedder
    from memory.models import MemoryId
    from memory.store.generations import Batch, Content

    Vectors = dict[MemoryId, npt.NDArray[np.float32]]

log = structlog.get_logger(__name__)

BATCH = 256
_MOST_REFUSED = 100
_SHOWN_REFUSED = 10
_LOOK_AGAIN_S = 1.0
_TOLERANCE = 1e-3  # of a vector's length: the index accepts no more


def reembed(
    database: Database,
    embedder: Embedder,
    *,
    on_progress: Callable[[int, int], None],
    on_switched: Callable[[], None] = lambda: None,
    patience_s: float = 60,
) -> int:
    """Embed every memory with another model, then switch to it at once; return how many were embedded.

    Until the switch the old vectors serve, and memories may be added, changed and deleted meanwhile.
    Killed at any point, it goes on from there when it is called again with the same model. Called twice
    at once with the same model, both do it all. After the switch, processes that still run the old model
    are refused by the database and must be restarted.

    Where memories are added or changed faster than they are embedded here, it catches up only afterwards.

    Args:
        database: whose memories.
        embedder: the model that is to serve.
        on_progress: called after each batch of at most 256 with (embedded by this call, left).
        on_switched: called as soon as the model serves, before the new vectors are moved into their rows.
        patience_s: how long to bear that the database is away.

    Raises:
        ModelMismatch: another re-embedding, with another model, has taken over.
        ServerAway: the database cannot be reached, or the model works no longer. Call it again to go on.
        SettingsError: the model fails on any text.
        InvalidMemory: the model cannot embed some contents; names the memories. All others are done, and
            the old vectors go on serving. Change or delete these memories, and call it again.

    """
    if problem := _problem_with(embedder):
        raise SettingsError(problem)
    generations = Generations(database, model_fingerprint=embedder.fingerprint, dim=embedder.embedding_dim)
    if not generations.begin():
        on_switched()
        tidy(database)
        return 0
    run = _Run(generations, embedder, on_progress=on_progress)
    _patiently(run.go_on, patience_s=patience_s)
    log.info("reembedding_switched", model=embedder.fingerprint, n=run.n_done)
    on_switched()
    try:
        _patiently(lambda: fold(database) == 0, patience_s=patience_s)
    except ServerAway as error:  # the next opening does it
        log.warning("reembedding_not_tidied", reason=str(error))
    return run.n_done


def tidy(database: Database) -> None:
    """Finish what a re-embedding that was killed after its switch left over."""
    fold(database)


def _patiently(step: Callable[[], bool], *, patience_s: float) -> None:
    """Take a step until it says that all is done: hours of work do not end for a moment's outage."""
    away_since: float | None = None
    while True:
        try:
            if step():
                return
            away_since = None
        except ServerAway as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since >= patience_s:
                raise
            log.warning("reembedding_interrupted", reason=str(error))
            time.sleep(_LOOK_AGAIN_S)


class _Run:
    """One call's way over all memories."""

    def __init__(
        self, generations: Generations, embedder: Embedder, *, on_progress: Callable[[int, int], None]
    ) -> None:
        self._generations = generations
        self._embedder = embedder
        self._on_progress = on_progress
        self._refused: dict[MemoryId, tuple[str, Exception]] = {}
        self._n_left = generations.n_left()
        self.n_done = 0
        log.info("reembedding_started", model=embedder.fingerprint, left=self._n_left)

    def go_on(self) -> bool:
        """Embed one batch, or switch where nothing is left; return whether the model serves.

        Again after an error is harmless.
        """
        batch = self._generations.next_batch(limit=BATCH)
        if batch is None:
            self._check_refused()
            return self._generations.switch()
        vectors = self._embedded(batch)
        if not self._generations.put(batch, vectors):
            return True  # another process made the switch
        if vectors:
            self.n_done += len(vectors)
            self._on_progress(self.n_done, max(0, self._n_left - self.n_done - len(self._refused)))
        return False

    def _embedded(self, batch: Batch) -> Vectors:
        """Embed a batch; what the model cannot embed is noted, and no longer where it was changed since."""
        self._refused = {i: why for i, why in self._refused.items() if i not in batch.ids}
        vectors = self._embed(batch.contents)
        if len(self._refused) >= _MOST_REFUSED:
            self._check_refused()
        return vectors

    def _embed(self, contents: Sequence[Content]) -> Vectors:
        """Embed; where that fails, embed the halves: so the one that is poison stands alone."""
        if not contents:
            return {}
        try:
            rows = _encode(self._embedder, [c.content for c in contents])
        except Exception as error:
            if len(contents) > 1:
                middle = len(contents) // 2
                return self._embed(contents[:middle]) | self._embed(contents[middle:])
            if problem := _problem_with(self._embedder):
                raise ServerAway(problem) from error
            self._refused[contents[0].memory_id] = (contents[0].content, error)
            return {}
        return {c.memory_id: row for c, row in zip(contents, rows, strict=True)}

    def _check_refused(self) -> None:
        if not self._refused:
            return
        (first, (content, error)), *others = sorted(self._refused.items())
        also = ", ".join(str(i) for i, _ in others[:_SHOWN_REFUSED])
        more = f", {also}{' and more' if len(others) > _SHOWN_REFUSED else ''}" if also else ""
        raise InvalidMemory(
            field=f"content of memory {first}{more}",
            value=content,
            allowed=f"text that {self._embedder.fingerprint} can embed ({type(error).__name__}: {error}): "
            "the old vectors go on serving; change or delete this, and embed again: what is done stays done",
        ) from error


def _problem_with(embedder: Embedder) -> str | None:
    """Embed a harmless text, to tell a poisonous text from a broken model; say what is wrong with that."""
    try:
        _encode(embedder, ["Is the model well?"])
    except Exception as error:  # noqa: BLE001 (whatever it raises, that is what is asked here)
        return f"the model {embedder.fingerprint} fails on any text: {type(error).__name__}: {error}"
    return None


def _encode(embedder: Embedder, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    embeddings = embed_whole(embedder, texts)
    if len(embeddings) != len(texts):
        message = f"there are {len(embeddings)} embeddings, expected {len(texts)}"
        raise ValueError(message)
    for rows in embeddings:
        if not len(rows) or rows.shape[1:] != (embedder.embedding_dim,):
            message = f"an embedding has shape {rows.shape}, expected (1 or more, {embedder.embedding_dim})"
            raise ValueError(message)
        if not (np.abs(np.linalg.norm(rows, axis=1) - 1) < _TOLERANCE).all():  # nor may it be NaN
            message = "an embedding is not finite or not of length 1"
            raise ValueError(message)
    return embeddings
