"""The one door to rerankers: a cross-encoder reads the query and a memory together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from memory.errors import NoReranker

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

log = structlog.get_logger(__name__)

RERANKED = 50
"""So many of the best are read by a reranker."""


class Reranker:
    """A cross-encoder of sentence-transformers, loaded when it is first asked. Threads take turns.

    Args:
        name: a directory, or a name on the model hub, from where it is fetched if it is not there; `None`
            for none.
        use_gpu: run it on CUDA.

    """

    def __init__(self, name: str | None, *, use_gpu: bool = False) -> None:
        self._name = name
        self._use_gpu = use_gpu
        self._turn = threading.Lock()
        self._model: Any = None

    def scores(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return how well each text answers the query: float64 (len(texts),), 0..1, higher is better.

        Raises:
            NoReranker: none is set, or it cannot be loaded.

        """
        if self._name is not None and not texts:
            return np.empty(0)
        with self._turn:
            model = self._loaded()
            logits = model.predict(
                [(query, text) for text in texts], activation_fn=_identity, show_progress_bar=False
            )
        found = np.asarray(logits, dtype=np.float64)
        if found.shape != (len(texts),) or not np.isfinite(found).all():
            message = f"{self._name} gives no single finite score for a pair of texts: it is no reranker"
            raise NoReranker(message)
        scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(found, -500, 500)))
        return scores

    def _loaded(self) -> Any:
        if self._name is None:
            message = "there is no reranker: set MEMORY_RERANKER to the name or directory of a cross-encoder"
            raise NoReranker(message)
        if self._model is None:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415 (takes seconds, and few ask)

            try:
                self._model = CrossEncoder(self._name, device="cuda" if self._use_gpu else "cpu")
            except Exception as error:  # whatever the library raises, nobody can rerank
                message = f"MEMORY_RERANKER: {self._name} cannot be loaded: {error}"
                raise NoReranker(message) from error
            log.info("reranker_loaded", model=self._name)
        return self._model


def _identity(logits: Any) -> Any:
    return logits
