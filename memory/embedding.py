"""The one door to embedding models: texts in, unit vectors out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memory.embedder import Embedder, WindowEmbedder
from memory.engine_choice import EngineChoice
from memory.engines.opening import open_engine
from memory.engines.passes import Passes
from memory.engines.source import DEFAULT_MODEL, locate
from memory.errors import InvalidMemory, SettingsError
from memory.logs import log_as_a_library
from memory.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from memory.engine_choice import EngineName, Precision

    Vectors = npt.NDArray[np.float32]

__all__ = ["DEFAULT_MODEL", "CheckedEmbedder", "EmbeddingModel", "locate", "unit_rows"]


class EmbeddingModel:
    """Any sentence-transformers model, by name or directory. Any number of threads may use it.

    The engine that runs it is chosen by what this machine has. All but int8 are near-exact: their vectors
    have a cosine of at least .9999 to those of torch in float32, which is checked when a model is
    prepared, and so they may be mixed in one index.

    Args:
        name: a directory, `all-MiniLM-L6-v2` (taken from its wheel where that is installed),
            or a name on the model hub (taken from its cache where the hub does not answer).
        use_gpu: embed on CUDA; refused where there is none.
        n_threads: threads of one pass on the CPU; 0 takes all cores.
        batch_tokens: word pieces of one pass through the model, padding included; 0: what is fastest
            with this engine.
        engine: `auto`, `torch` or `openvino`.
        precision: of the arithmetic: `auto`, `float32`, `bfloat16`, `float16` (GPU) or `int8`, which is
            another model to an index.
        cache: directory of prepared models; else EMBEDDING_CACHE, else `models` in MEMORY_HOME.

    Raises:
        SettingsError: the model cannot be loaded, or not in this way, or there is no GPU; says what is
            missing or allowed.

    """

    def __init__(
        self,
        name: str = DEFAULT_MODEL,
        *,
        use_gpu: bool = False,
        n_threads: int = 0,
        batch_tokens: int = 0,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        cache: Path | None = None,
    ) -> None:
        log_as_a_library()
        self.name = name
        self.on_pass: Callable[[], None] = _nothing
        """Called after each pass through the model, by whom it was made: a sign of progress within a long
        batch. Nothing is held meanwhile: it may embed other texts, and is not called for those."""
        choice = EngineChoice(
            engine=engine,
            precision=precision,
            use_gpu=use_gpu,
            n_threads=n_threads,
            cache=cache or read_settings().model_cache,
        )
        self.engine = open_engine(name, choice)
        self._passes = Passes(self.engine, batch_tokens=batch_tokens)

    @property
    def fingerprint(self) -> str:
        """Name, SHA-256 of weights and pooling (12 hex digits), dimension, precision and normalisation.

        The precision is `float32` for every near-exact engine, whatever it computes in.
        """
        vectors = f"{self.embedding_dim}d/{self.engine.family}/unit"
        return f"{Path(self.name).name}@{self.engine.digest}/{vectors}"

    @property
    def embedding_dim(self) -> int:
        """How many numbers a vector has."""
        return self.engine.dim

    def encode(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors:
        """Embed texts. Returns float32 (len(texts), d), rows of length 1, in input order.

        Texts are sorted by length and passed in batches of about equal cost, so little is padding.
        The model reads at most its own maximum of word pieces of each text (256 for the default).
        Calls from several threads take turns, pass by pass.

        Args:
            texts: any number of texts, also none. One text is refused: put it in a list.
            batch_size: at most so many texts in one pass, from 1; unlimited where absent.

        Raises:
            InvalidMemory: `texts` is no list of texts, `batch_size` is below 1, or the model gave a vector
                that is not finite or has no length.
            ServerAway: the GPU has no memory left, not even for one text.

        """
        checked = _texts("texts", texts)
        if batch_size is not None:
            _check_at_least_one("batch_size", batch_size)
        if not checked:
            return np.empty((0, self.embedding_dim), dtype=np.float32)
        max_rows = batch_size or len(checked)
        return unit_rows(self._passes.vectors(checked, max_rows=max_rows, on_pass=self._passed))

    def encode_windows(self, texts: Sequence[str]) -> list[Vectors]:
        """Embed texts whole. Returns for each, in input order, float32 (w, d), rows of length 1, w >= 1.

        A text that is longer than the model reads is cut into windows that overlap, where sentences end if
        that is possible; any other one is a single window. Raises what `encode` does.
        """
        checked = _texts("texts", texts)
        if not checked:
            return []
        vectors, counts = self._passes.windows(checked, max_rows=sys.maxsize, on_pass=self._passed)
        return np.split(unit_rows(vectors), np.cumsum(counts)[:-1])

    def _passed(self) -> None:
        self.on_pass()  # whichever it is by now

    def get_similarity(self, a: str, b: str) -> float:
        """Return the cosine of two texts, -1..1."""
        first, second = self.encode([a, b])
        return float(np.clip(first @ second, -1, 1))

    def get_most_similar(
        self, query: str, texts: Sequence[str], top_k: int = 5, threshold: float = 0.0
    ) -> list[tuple[int, float]]:
        """Return (position in `texts`, cosine) of the nearest, best first; equally near ones in input order.

        Args:
            query: one text.
            texts: any number of texts, also none.
            top_k: how many at most, from 1.
            threshold: none below it; cosine, -1..1.

        Raises:
            InvalidMemory: `query` is no text, `texts` is no list of texts, or `top_k` is below 1.

        """
        _check_at_least_one("top_k", top_k)
        checked = [*_texts("query", [query]), *_texts("texts", texts)]
        if len(checked) == 1:
            return []
        vectors = self.encode(checked)
        scores = np.clip(vectors[1:] @ vectors[0], -1, 1)
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(i), float(scores[i])) for i in best if scores[i] >= threshold]


class CheckedEmbedder:
    """A model that somebody else wrote: what it gives is checked, and scaled to length 1.

    Args:
        embedder: any object with `encode`, `embedding_dim` and `fingerprint`.

    Raises:
        SettingsError: it lacks one of them.

    """

    def __init__(self, embedder: Embedder) -> None:
        for name in ("encode", "embedding_dim", "fingerprint"):
            if not hasattr(embedder, name):
                message = f"embedding_model = {embedder!r}: must be a name, or an object that has {name}"
                raise SettingsError(message)
        self._embedder = embedder
        self.embedding_dim = embedder.embedding_dim
        self.fingerprint = embedder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts. Returns float32 (len(texts), d), rows of length 1, in input order.

        Raises:
            InvalidMemory: the model gave something else than a finite vector of d numbers for each text.

        """
        return self._checked(self._embedder.encode(texts), n=len(texts))

    def encode_windows(self, texts: Sequence[str]) -> list[Vectors]:
        """Embed texts whole, if the model can. Returns for each, in input order, float32 (w, d), w >= 1.

        Raises:
            InvalidMemory: the model gave something else than a list of finite vectors of d numbers a text.

        """
        if not isinstance(self._embedder, WindowEmbedder):
            return list(self.encode(texts)[:, np.newaxis])
        found = self._embedder.encode_windows(texts)
        if len(found) != len(texts):
            raise InvalidMemory(field="embeddings", value=len(found), allowed=f"of {len(texts)} texts")
        return [self._checked(windows, n=max(1, len(windows))) for windows in found]

    def _checked(self, found: object, *, n: int) -> Vectors:
        vectors = np.asarray(found, dtype=np.float32)
        shape = (n, self.embedding_dim)
        if vectors.shape != shape:
            raise InvalidMemory(field="embeddings", value=vectors.shape, allowed=f"of shape {shape}")
        return unit_rows(vectors)


def unit_rows(vectors: Vectors) -> Vectors:
    """Scale each row to length 1, in float32 whatever precision made it.

    Raises:
        InvalidMemory: a row is not finite or has no length: it could never be found.

    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 1e-12)
    if not usable.all():
        row = int(np.flatnonzero(~usable[:, 0])[0])
        allowed = "a vector that is finite and not zero"
        raise InvalidMemory(field=f"embedding {row}", value=float(lengths[row, 0]), allowed=allowed)
    unit: Vectors = vectors / lengths
    return unit


def _texts(field: str, texts: object) -> list[str]:
    if isinstance(texts, str | bytes | Mapping | Set) or not isinstance(texts, Iterable):
        raise InvalidMemory(field=field, value=texts, allowed="a list of texts")
    checked = list(texts)
    for place, text in enumerate(checked):
        if not isinstance(text, str):
            raise InvalidMemory(field=f"{field}[{place}]", value=text, allowed="text")
        try:
            text.encode()
        except UnicodeEncodeError:
            allowed = "text without lone surrogates (it was decoded wrongly)"
            raise InvalidMemory(field=f"{field}[{place}]", value=text, allowed=allowed) from None
    return checked


def _check_at_least_one(field: str, value: int) -> None:
    if value < 1:
        raise InvalidMemory(field=field, value=value, allowed="at least 1")


def _nothing() -> None:
    pass
