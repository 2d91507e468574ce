"""In the indexer, each large block is mapped by itself, also after larger ones were freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes
from indexer.allocator import return_large_blocks

if {called}:
    return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(8 << 20))  # by itself, glibc would take blocks up to this size from its heap now

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc.mallinfo2.restype = Mallinfo2
before = libc.mallinfo2().hblks
blocks = [libc.malloc(256 << 10) for _ in range(20)]
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.parametrize(("called", "n_mapped"), [(True, 20), (False, 0)])
def test_large_blocks_are_mapped_each_by_itself(called: bool, n_mapped: int) -> None:
    script = _SCRIPT.format(called=called)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == n_mapped
