"""The owner's lock: one process at a time, and a dead one holds nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.lock import OwnerLock

HOLD = """
import sys
from pathlib import Path
from indexer.lock import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
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
    lock = OwnerLock(tmp_path)
    assert lock.try_acquire()
    with other_process(tmp_path) as (_, got_it):
        assert not got_it


def test_a_killed_process_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    lock = OwnerLock(tmp_path)
    with other_process(tmp_path) as (process, got_it):
        assert got_it
        assert not lock.try_acquire()
        process.kill()
        process.wait()
        assert lock.try_acquire()


def test_waiting_for_the_lock_tells_of_each_look_and_ends_when_the_holder_dies(tmp_path: Path) -> None:
    lock = OwnerLock(tmp_path)
    looks: list[bool] = []
    with other_process(tmp_path) as (process, _):

        def on_wait() -> None:
            looks.append(process.poll() is None)
            process.kill()
            process.wait()

        lock.acquire(on_wait=on_wait)
    assert looks == [True]
    assert not OwnerLock(tmp_path).try_acquire()


def test_a_free_lock_is_taken_without_waiting(tmp_path: Path) -> None:
    looks: list[int] = []
    OwnerLock(tmp_path).acquire(on_wait=lambda: looks.append(1))
    assert looks == []


def test_two_owners_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    first, second = OwnerLock(tmp_path), OwnerLock(tmp_path)
    assert first.try_acquire()
    assert not second.try_acquire()
    assert first.try_acquire()


def test_each_index_directory_has_a_lock_of_its_own_that_only_its_user_may_open(tmp_path: Path) -> None:
    first, second = OwnerLock(tmp_path / "a"), OwnerLock(tmp_path / "new" / "b")
    assert first.try_acquire()
    assert second.try_acquire()
    assert (tmp_path / "a" / "owner.lock").stat().st_mode & 0o777 == 0o600
