"""A model that costs next to nothing and whose vectors look real: mixtures of a real model's.

It carries the real model's fingerprint, so that an index of its vectors answers queries that the real model
embeds. Never use it for anything but a benchmark: its vectors say nothing about their texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.null_embedder import random_stretches, text_keys, unit

FILE = "synthetic.npz"
"""In MEMORY_HOME: `vectors`, float32 (n, d) of a real model, and its `fingerprint`."""

_SECOND = (0.2, 0.9)  # the share of the second sentence, between these
_OTHERS = 0.35  # of two more, one of them turned round
_NOISE = 0.3  # of a direction that is random


class SyntheticEmbedder:
    """Mixes for each text the vectors of four real sentences, and some noise; which ones, its CRC-32 says.

    So each text has near neighbours, which share its first sentence, and nearer ones, which share two.

    Args:
        base: float32 (n, d), rows of length 1, of a real model.
        fingerprint: that model's.

    """

    def __init__(self, base: Any, fingerprint: str) -> None:
        self.on_pass: Callable[[], None] = lambda: None
        self.fingerprint = fingerprint
        self.embedding_dim = base.shape[1]
        self._base = base
        self._noise = random_stretches()

    @classmethod
    def of_home(cls, home: Path) -> Self:
        """Read what `save_base` wrote."""
        with np.load(home / FILE) as file:
            return cls(file["vectors"], str(file["fingerprint"]))

    def encode(self, texts: Sequence[str]) -> Any:
        """Return float32 (len(texts), d), rows of length 1, in input order."""
        keys = text_keys(texts).astype(np.uint64)
        n, noise_dim = len(self._base), self._noise.shape[1]
        first, second, third, fourth = (self._base[_draw(keys, turn) % n] for turn in range(4))
        low, high = _SECOND
        share = low + (high - low) * (_draw(keys, 4) % 1000).astype(np.float32)[:, None] / 1000
        rows = first + share * second + _OTHERS * (third - fourth)
        rows[:, :noise_dim] += _NOISE * noise_dim**-0.5 * self._noise[_draw(keys, 5) % len(self._noise)]
        self.on_pass()
        return unit(rows)


def save_base(home: Path, vectors: Any, fingerprint: str) -> None:
    """Write what `of_home` reads."""
    np.savez(home / FILE, vectors=vectors, fingerprint=fingerprint)


def _draw(keys: Any, turn: int) -> Any:
    """Return int64 (n,), 0..2**31: numbers that look random, always the same for a key and a turn."""
    start = np.uint64((turn + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (keys + start) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(33)).astype(np.int64)
