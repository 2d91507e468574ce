"""F6: Postgres on a full disk: nothing is acknowledged that was not stored, and it goes on with room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.null_stack import LogFrom, assert_kept, n_on_streams, running_null_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_SIZE = "size=160m,mode=0711"
_CHUNK = 2**16


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A small file system for Postgres alone."""
    directory = home / "postgres"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", _SIZE, "none", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root, where it may mount, can make a disk small")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_f06_a_full_disk_under_postgres_keeps_batches_unacknowledged_until_there_is_room(
    small_disk: Path, home: Path
) -> None:
    with running_null_stack(home) as stack, stack.client() as client:
        drafts = [{"content": f"{i} " + "x" * 20_000, "namespace": "f06 disk"} for i in range(500)]
        embed = LogFrom(stack, "embed-1")
        filler = fill(small_disk)
        receipts = list(client.enqueue_many(drafts))
        wait_until(lambda: embed.lines("drain_interrupted"), timeout_s=60, why="the disk is full")
        n_left = n_on_streams(stack)
        assert n_left > 0
        wait_until(lambda: len(embed.lines("drain_interrupted")) >= 3, timeout_s=60, why="it is tried again")
        filler.unlink()
        assert_kept(stack, receipts, namespace="f06 disk")
        assert client.dead_letters() == []


def fill(directory: Path) -> Path:
    """Leave no room on the file system of this directory."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * _CHUNK)
        except OSError:
            return filler
