"""A set of ids as one bit each: what a filter takes of the index, ready to be scanned with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Bits = npt.NDArray[np.uint8]


class IdBits:
    """Ids from 0, an eighth of a byte for each number up to the highest. Not thread-safe by itself."""

    def __init__(self, ids: Ids) -> None:
        self.bits: Bits = _bits_of(ids)
        """uint8 (m,): the id `i` is bit `i % 8` of byte `i // 8`; beyond the last byte there is none."""
        self._n = len(ids)

    def __len__(self) -> int:
        return self._n

    def ids(self) -> Ids:
        """Return the ids, ascending."""
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))

    def add(self, ids: Ids) -> None:
        """Add distinct ids; one that is there is no error."""
        if not len(ids):
            return
        self._reach(int(ids.max()))
        self._n += len(ids) - int(self._has(ids).sum())
        np.bitwise_or.at(self.bits, ids >> 3, _bit(ids))

    def discard(self, ids: Ids) -> None:
        """Remove distinct ids; one that is not there is no error."""
        ids = ids[ids < 8 * len(self.bits)]
        self._n -= int(self._has(ids).sum())
        np.bitwise_and.at(self.bits, ids >> 3, ~_bit(ids))

    def _has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        there: npt.NDArray[np.bool_] = (self.bits[ids >> 3] & _bit(ids)) != 0
        return there

    def _reach(self, highest: int) -> None:
        if highest >= 8 * len(self.bits):  # an eighth more than is needed: new ids come at the end
            grown = np.zeros(highest // 8 + highest // 64 + 8, dtype=np.uint8)
            grown[: len(self.bits)] = self.bits
            self.bits = grown


def _bit(ids: Ids) -> Bits:
    return np.left_shift(np.uint8(1), (ids & 7).astype(np.uint8))


def _bits_of(ids: Ids) -> Bits:
    there = np.zeros(int(ids.max(initial=0)) // 8 * 8 + 8, dtype=bool)
    there[ids] = True
    return np.packbits(there, bitorder="little")
