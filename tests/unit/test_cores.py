"""How many embed workers `memory up` starts, and with how many threads each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_stub.stack import cores
from api_stub.stack.cores import MOST_WORKERS, count_cores, n_embed_threads, n_embed_workers
from memory.settings import read_settings

GIB = 1 << 30


@pytest.mark.parametrize(
    ("given", "n_cores", "n_bytes", "expected"),
    [
        ({}, 1, 16 * GIB, 1),
        ({}, 2, 16 * GIB, 2),
        ({}, 8, 16 * GIB, 8),
        ({}, 16, 8 * GIB, 4),
        ({}, 4, GIB, 1),
        ({}, 128, 1024 * GIB, MOST_WORKERS),
        ({"embed_workers": 3}, 2, GIB, 3),
        ({"use_gpu": True}, 16, 64 * GIB, 1),
        ({"use_gpu": True, "embed_workers": 2}, 16, 64 * GIB, 2),
    ],
)
def test_one_worker_a_core_as_far_as_the_memory_goes(
    given: dict[str, Any], n_cores: int, n_bytes: int, expected: int
) -> None:
    assert n_embed_workers(read_settings(**given), n_cores=n_cores, n_bytes=n_bytes) == expected


@pytest.mark.parametrize(
    ("threads", "n_workers", "n_cores", "expected"), [(0, 1, 8, 8), (0, 2, 8, 4), (0, 8, 2, 1), (5, 2, 8, 5)]
)
def test_the_workers_share_the_cores(threads: int, n_workers: int, n_cores: int, expected: int) -> None:
    settings = read_settings(embed_threads=threads)
    assert n_embed_threads(settings, n_workers=n_workers, n_cores=n_cores) == expected


def test_the_machine_itself_has_room_for_one() -> None:
    assert 1 <= n_embed_workers(read_settings()) <= count_cores()


@pytest.mark.parametrize(("said", "is_less"), [("1073741824\n", True), ("max\n", False), (None, False)])
def test_a_container_has_the_memory_it_may_use(tmp_path: Path, said: str | None, is_less: bool) -> None:
    limit = tmp_path / "memory.max"
    if said:
        limit.write_text(said)
    assert (cores._memory_bytes(limit) == GIB) is is_less
