"""Names for what has none: the same at each reading of the same, told apart where it is there again."""

from __future__ import annotations

import hashlib
from collections import Counter

_DIGITS = 32  # hexadecimal: 128 bits


class HashedNames:
    """Names by content, in one file or conversation. Equal contents are told apart by their order."""

    def __init__(self) -> None:
        self._n_equal: Counter[str] = Counter()

    def name(self, written: bytes) -> str:
        """Return `sha256:` with 32 hexadecimal digits, and `:2` and so on for what was there before."""
        name = hashed(written)
        self._n_equal[name] += 1
        return f"{name}:{self._n_equal[name]}" if self._n_equal[name] > 1 else name


def hashed(written: bytes) -> str:
    """Return `sha256:` with 32 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(written).hexdigest()[:_DIGITS]}"
