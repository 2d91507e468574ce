"""Two indexers on one database: one owns the index, the other waits; an owner that was overtaken ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil
import pytest

from memory.snapshot import SnapshotFolder
from memory.store.event_log import EventLog, IndexProgress
from tests.faults.null_stack import (
    LogFrom,
    assert_index_equal,
    assert_kept,
    beside,
    database_of,
    wait_until_dead,
    wait_until_ready,
    wait_until_saved,
)
from tests.pipeline.processes import alive
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults


def test_f10_a_second_indexer_waits_and_consumes_nothing_until_the_first_one_is_gone(
    null_stack: Stack,
) -> None:
    first = wait_until_ready(null_stack, "indexer")
    epoch = _progress(null_stack).epoch
    log = LogFrom(null_stack, "second")
    with beside(null_stack, "indexer", log="second") as second:
        wait_until(lambda: log.lines("standby"), timeout_s=60, why="the second one waits")
        _assert_answers(null_stack, namespace="f10 waiting")
        assert _progress(null_stack).epoch == epoch
        assert alive([first, second]) == [first, second]
        assert _ports_of(null_stack, "redis").isdisjoint(_connected_to(second))
        first.kill()
        _wait_until_overtaken(null_stack, epoch)
        _assert_answers(null_stack, namespace="f10 after")
    wait_until_ready(null_stack, "indexer")
    _assert_answers(null_stack, namespace="f10 end")


def test_f10_a_paused_owner_whose_lock_file_was_deleted_is_fenced_and_rolls_nothing_back(
    null_stack: Stack,
) -> None:
    zombie = wait_until_ready(null_stack, "indexer")
    before, logs = _progress(null_stack), _Logs(null_stack)
    with _paused(zombie):
        (null_stack.home / "index" / "owner.lock").unlink()
        with beside(null_stack, "indexer", log="second"):
            _wait_until_overtaken(null_stack, before.epoch)
            _assert_answers(null_stack, namespace="f10 deleted")
            wait_until_saved(null_stack)
            saved = _progress(null_stack)
            zombie.resume()
            logs.assert_fenced(zombie)
            _assert_answers(null_stack, namespace="f10 deleted, resumed")
            wait_until_saved(null_stack)
            _assert_went_on(saved, _progress(null_stack), n_takeovers=0)
    _assert_ends_well(null_stack, saved, namespace="f10 deleted, at the end")


def test_f10_a_paused_owner_that_was_overtaken_from_another_directory_is_fenced_and_starts_anew(
    null_stack: Stack,
) -> None:
    zombie = wait_until_ready(null_stack, "indexer")
    before, logs = _progress(null_stack), _Logs(null_stack)
    elsewhere = null_stack.home / "index-2"
    with _paused(zombie):
        with beside(null_stack, "indexer", log="second", FAISS_INDEX_PATH=str(elsewhere)):
            _wait_until_overtaken(null_stack, before.epoch)
            for n in range(3):  # so that events are pruned which the zombie's snapshot needs
                _assert_answers(null_stack, namespace=f"f10 elsewhere {n}")
                wait_until_saved(null_stack, elsewhere)
            saved = _progress(null_stack)
        zombie.resume()
        logs.assert_fenced(zombie)
    _assert_ends_well(null_stack, saved, namespace="f10 elsewhere, at the end")
    assert "whose successors are gone" in "".join(logs.indexer.lines("snapshot_refused"))


class _Logs:
    """What the stack's indexer and its supervisor say from now on."""

    def __init__(self, stack: Stack) -> None:
        self.indexer = LogFrom(stack, "indexer")
        self._supervisor = LogFrom(stack, "up")

    def assert_fenced(self, zombie: psutil.Process) -> None:
        """It ends by itself, since it is fenced, and says so by its exit code."""
        wait_until_dead(zombie)
        assert self.indexer.lines("no longer owns the index")
        wait_until(lambda: self._supervisor.lines("indexer died"), timeout_s=30, why="the supervisor saw it")
        assert f"(exit code {os.EX_SOFTWARE})" in self._supervisor.lines("indexer died")[0]


def _wait_until_overtaken(stack: Stack, epoch: int) -> None:
    wait_until(lambda: _progress(stack).epoch > epoch, timeout_s=60, why="another one owns the index")


def _assert_went_on(before: IndexProgress, after: IndexProgress, *, n_takeovers: int) -> None:
    assert after.epoch == before.epoch + n_takeovers
    assert after.snapshot_seq >= before.snapshot_seq
    assert after.applied_seq >= before.applied_seq


def _assert_ends_well(stack: Stack, saved: IndexProgress, *, namespace: str) -> None:
    """The stack's indexer, started again, has taken over, and its CURRENT is whole and the newest."""
    _wait_until_overtaken(stack, saved.epoch)
    _assert_answers(stack, namespace=namespace)
    wait_until_saved(stack)
    _assert_went_on(saved, _progress(stack), n_takeovers=1)
    folder = SnapshotFolder(stack.home / "index")
    folder.check(str(folder.current()))
    assert_index_equal(stack)


def _assert_answers(stack: Stack, namespace: str) -> None:
    """Memories go in, are found, and every single search is answered."""
    with stack.client() as client:
        receipts = client.enqueue_many(
            [{"content": f"memory {i}", "namespace": namespace} for i in range(20)]
        )
        assert_kept(stack, list(receipts), namespace=namespace)
        for i in range(20):
            assert client.search(f"memory {i}", namespace=namespace, limit=1, timeout_s=30)


def _progress(stack: Stack) -> IndexProgress:
    with database_of(stack) as database:
        return EventLog(database).progress()


def _ports_of(stack: Stack, name: str) -> set[int]:
    return {c.laddr.port for c in stack.child(name).net_connections() if c.status == psutil.CONN_LISTEN}


def _connected_to(process: psutil.Process) -> set[int]:
    return {c.raddr.port for c in process.net_connections() if c.raddr}


@contextlib.contextmanager
def _paused(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
