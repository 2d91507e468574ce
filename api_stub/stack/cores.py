"""How many embed workers suit this machine, and how many threads each of them gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memory.settings import Settings

MOST_WORKERS = 32
_BYTES_A_WORKER = 1 << 30  # a third of it once the model is prepared
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


def n_embed_workers(settings: Settings, *, n_cores: int | None = None, n_bytes: int | None = None) -> int:
    """Return MEMORY_EMBED_WORKERS, else one worker a core, which is faster than threads; one for a GPU.

    Never more than half of the memory holds, nor more than 32.

    Args:
        settings: those of `memory up`.
        n_cores: that this process may use; found out where absent.
        n_bytes: of memory, likewise.

    """
    if settings.embed_workers or settings.use_gpu:
        return settings.embed_workers or 1
    held = (n_bytes or _memory_bytes()) // 2 // _BYTES_A_WORKER
    return max(1, min(n_cores or count_cores(), held, MOST_WORKERS))


def n_embed_threads(settings: Settings, *, n_workers: int, n_cores: int | None = None) -> int:
    """Return MEMORY_EMBED_THREADS, else each worker's share of the cores, at least 1."""
    return settings.embed_threads or max(1, (n_cores or count_cores()) // n_workers)


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _memory_bytes(limit: Path = _MEMORY_LIMIT) -> int:
    """Return the memory of the machine, or of the container around us where that is less."""
    of_machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    said = limit.read_text().strip() if limit.is_file() else ""
    return min(of_machine, int(said)) if said.isdecimal() else of_machine
