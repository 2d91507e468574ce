"""The lock of the index: readers beside each other, a change alone, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from memory.shared_lock import SharedLock
from tests.waiting import wait_until


@contextmanager
def running(*functions: object) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=f) for f in functions]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def waits_to_change(lock: SharedLock, n: int = 1) -> None:
    wait_until(lambda: lock._n_wait_to_change == n, timeout_s=30, why="a change waits")


def test_readers_share_it() -> None:
    lock, both = SharedLock(), threading.Barrier(2)

    def read() -> None:
        with lock.shared():
            both.wait(timeout=30)

    with running(read, read):
        pass


def test_a_change_waits_for_readers_and_later_readers_wait_for_the_change() -> None:
    lock, order = SharedLock(), list[str]()
    first_is_done = threading.Event()

    def read_first() -> None:
        with lock.shared():
            first_is_done.wait(timeout=30)
            order.append("first reader")

    def change() -> None:
        with lock.alone():
            order.append("change")

    def read_later() -> None:
        with lock.shared():
            order.append("later reader")

    with running(read_first):
        wait_until(lambda: lock._n_reading == 1, timeout_s=30, why="the first one reads")
        with running(change):
            waits_to_change(lock)
            with running(read_later):
                wait_until(lambda: lock._n_wait_to_read == 1, timeout_s=30, why="the later one waits")
                assert order == []
                first_is_done.set()
    assert order == ["first reader", "change", "later reader"]


def test_after_a_change_who_waits_to_read_goes_before_the_next_change() -> None:
    lock, order = SharedLock(), list[str]()

    def read() -> None:
        with lock.shared():
            order.append("reader")

    def change() -> None:
        with lock.alone():
            order.append("change")

    lock_held = lock.alone()
    lock_held.__enter__()
    with running(change):
        waits_to_change(lock)
        with running(read, read):
            wait_until(lambda: lock._n_wait_to_read == 2, timeout_s=30, why="two wait to read")
            lock_held.__exit__(None, None, None)
    assert order == ["reader", "reader", "change"]


def test_an_error_inside_lets_go_of_it() -> None:
    lock = SharedLock()
    for held in (lock.shared, lock.alone):
        with pytest.raises(ValueError, match="inside"), held():
            raise ValueError("inside")
    with lock.alone():
        pass
    with lock.shared():
        pass


def test_neither_side_starves() -> None:
    lock, stop = SharedLock(), threading.Event()
    counts = {"read": 0, "change": 0}
    wrong = list[str]()
    changing = [False]

    def read() -> None:
        while not stop.is_set():
            with lock.shared():
                if changing[0]:
                    wrong.append("a reader beside a change")
                counts["read"] += 1

    def change() -> None:
        while not stop.is_set():
            with lock.alone():
                changing[0] = True
                counts["change"] += 1
                changing[0] = False

    with running(read, read, change, change):
        wait_until(lambda: min(counts.values()) > 300, timeout_s=60, why="both get on")
        stop.set()
    assert wrong == []
