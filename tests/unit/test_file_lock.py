"""A lock on a file: one process at a time, and a dead one holds nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory.file_lock import FileLock

HOLD = """
import sys
from pathlib import Path
from memory.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]) / "lock")
print(lock.try_acquire(), flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(directory: Path) -> Iterator[tuple[subprocess.Popen[str], bool]]:
    """Run another process that tries to take the lock; yield it, and whether it got the lock."""
    argv = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline() == "True\n"
        finally:
            process.kill()


def test_a_second_process_does_not_get_the_lock_while_the_first_lives(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    with other_process(tmp_path) as (_, got_it):
        assert not got_it


def test_a_killed_process_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with other_process(tmp_path) as (process, got_it):
        assert got_it
        assert not lock.try_acquire()
        process.kill()
        process.wait()
        assert lock.try_acquire()


@pytest.mark.timeout(30)
def test_waiting_for_the_lock_tells_of_each_look_and_ends_when_the_holder_dies(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    looks: list[bool] = []
    with other_process(tmp_path) as (process, _):

        def on_wait() -> None:
            looks.append(process.poll() is None)
            process.kill()
            process.wait()

        lock.acquire(on_wait=on_wait)
    assert looks == [True]
    assert not FileLock(tmp_path / "lock").try_acquire()


def test_a_free_lock_is_taken_without_waiting(tmp_path: Path) -> None:
    looks: list[int] = []
    FileLock(tmp_path / "lock").acquire(on_wait=lambda: looks.append(1))
    assert looks == []


def test_two_holders_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    assert first.try_acquire()


def test_a_released_lock_is_free_for_the_next(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    first.release()
    assert second.try_acquire()


def test_each_file_is_a_lock_of_its_own_that_only_its_user_may_open(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "a"), FileLock(tmp_path / "new" / "b")
    assert first.try_acquire()
    assert second.try_acquire()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
