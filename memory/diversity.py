"""Maximal marginal relevance: each next one is relevant, and unlike those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def diverse(
    scores: npt.NDArray[np.float64], vectors: npt.NDArray[np.float32], *, k: int, diversity: float
) -> list[int]:
    """Return the places of `k` in the order in which they are chosen.

    Each is the one with the largest (1 - diversity) · score - diversity · likeness, where likeness is the
    largest cosine between it and one that was chosen before; of equal ones, the first. (Carbonell and
    Goldstein, 1998, with λ = 1 - diversity.)

    Args:
        scores: float64 (n,), best first.
        vectors: float32 (n, d), rows of length 1.
        k: how many; all where there are fewer.
        diversity: 0..1; at 0 the order stays as it is.

    """
    likeness = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        gain = np.where(left, (1 - diversity) * scores - diversity * likeness, -np.inf)
        place = int(np.argmax(gain))
        cosines = (vectors @ vectors[place]).astype(np.float64)
        likeness = np.maximum(likeness, cosines) if chosen else cosines
        left[place] = False
        chosen.append(place)
    return chosen
