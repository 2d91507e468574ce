"""The indexer's memory: what is freed goes back to the system, what stays is not looked through again."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # see mallopt(3)
_LARGE_BYTES = 128 * 1024  # what glibc begins with


def return_large_blocks() -> None:
    """Let the C library map each large block by itself, for good. Call it before the index is loaded.

    A list of the index that is full moves into a block of twice the size, and does not touch the second
    half for long. By itself, glibc soon stops to map such blocks and takes them from what was freed, all
    of which stays resident: a million vectors that take 450 MB take 690 MB after 10,000 additions.
    A C library without this setting is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def exempt_from_collection() -> None:
    """Let Python's garbage collector pass over all that there is by now. Call it when all is loaded.

    A full collection looks at each of some 140,000 objects, of modules above all, and takes 70 ms, on a busy
    machine 170, for which every search waits; the making of a larger index brings several about.
    """
    gc.collect()
    gc.freeze()
