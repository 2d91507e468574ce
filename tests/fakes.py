"""A model without a model: equal texts have equal vectors, texts that share words have near ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memory.embedding import unit_rows


class WordEmbedder:
    """Adds up one fixed random direction a word. Deterministic, and as fast as a test needs."""

    fingerprint = "words@1/32d/float32/unit"
    embedding_dim = 32
    _salt = ""

    def __init__(self, *, poison: str | None = None) -> None:
        self._poison = poison
        self.n_texts = 0

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts. Returns float32 (len(texts), d), rows of length 1. Fails on the poison word."""
        self.n_texts += len(texts)
        if self._poison and any(self._poison in text for text in texts):
            message = "this text breaks the model"
            raise RuntimeError(message)
        rows = [np.sum([self._direction(word) for word in text.lower().split()], axis=0) for text in texts]
        return unit_rows(np.asarray(rows, dtype=np.float32).reshape(len(texts), self.embedding_dim))

    def _direction(self, word: str) -> npt.NDArray[np.float32]:
        name = self._salt + word.strip(".,!?")
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.embedding_dim).astype(np.float32)


class ShortSightedEmbedder(WordEmbedder):
    """The same model, which reads four words at once: a longer text has windows, which share a word."""

    n_words = 4

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed the first words of texts. Returns float32 (len(texts), d), rows of length 1."""
        return super().encode([" ".join(text.split()[: self.n_words]) for text in texts])

    def encode_windows(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Embed texts whole. Returns for each float32 (w, d), rows of length 1."""
        return [self.encode(self.windows(text)) for text in texts]

    def windows(self, text: str) -> list[str]:
        """Cut a text into what is read at once."""
        words = text.split()
        begins = range(0, max(1, len(words) - 1), self.n_words - 1)
        return [" ".join(words[begin : begin + self.n_words]) for begin in begins]


class WideEmbedder(WordEmbedder):
    """Another model, of another dimension."""

    fingerprint = "wide-words@1/48d/float32/unit"
    embedding_dim = 48
    _salt = "wide "


class TwinEmbedder(WordEmbedder):
    """Another model whose vectors look just like those of the first one: mixed up, nobody would notice."""

    fingerprint = "twin-words@1/32d/float32/unit"
    _salt = "twin "
