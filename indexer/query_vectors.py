"""The newest queries and their vectors: what is asked again need not be embedded again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]


class QueryVectors:
    """Vectors by model and query, at most so many; the one not asked for longest goes first.

    Any number of threads may use it. The vectors are shared, and so they cannot be written to.

    Args:
        capacity: from 1; 2,048 vectors of 384 numbers take 3 MB, and their texts.

    """

    def __init__(self, capacity: int = 2048) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    def get(self, fingerprint: str, query: str) -> Vector | None:
        """Return the vector of a query, float32 (d,); `None` where it is not there."""
        with self._lock:
            vector = self._vectors.get((fingerprint, query))
            if vector is not None:
                self._vectors.move_to_end((fingerprint, query))
            return vector

    def put(self, fingerprint: str, query: str, vector: Vector) -> None:
        """Keep the vector that this model gave this query."""
        vector.setflags(write=False)
        with self._lock:
            self._vectors[fingerprint, query] = vector
            self._vectors.move_to_end((fingerprint, query))
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)

    def __len__(self) -> int:
        """Count what is kept."""
        return len(self._vectors)
