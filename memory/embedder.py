"""What the pipeline needs of a model; it imports none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


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


@runtime_checkable
class WindowEmbedder(Embedder, Protocol):
    """A model that can read texts of any length, window by window."""

    def encode_windows(self, texts: Sequence[str]) -> list[Vectors]:
        """Embed texts whole. Returns for each, in input order, float32 (w, d): its w windows, w >= 1."""


def embed_whole(embedder: Embedder, texts: Sequence[str]) -> list[Vectors]:
    """Return, for each text, float32 (w, d): its windows, or the one vector of a model that knows none."""
    if isinstance(embedder, WindowEmbedder):
        return embedder.encode_windows(texts)
    return list(embedder.encode(texts)[:, np.newaxis])
