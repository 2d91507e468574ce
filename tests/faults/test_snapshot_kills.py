"""An indexer that dies at any step of saving: the snapshot is the old or the new one, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from memory.failpoints import Failpoint
from memory.models import Receipt
from memory.snapshot import SnapshotFolder
from tests.faults.null_stack import (
    Action,
    LogFrom,
    arm,
    assert_kept,
    nothing_restarts,
    wait_until_dead,
    wait_until_reached,
    wait_until_ready,
    wait_until_saved,
)
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_POINTS = [point for point in get_args(Failpoint) if point.startswith("snapshot.")]
_UNFINISHED = {"snapshot.written", "snapshot.flushed"}
_POINTED_TO = {"snapshot.current", "snapshot.recorded", "snapshot.pruned"}


@pytest.fixture(scope="module")
def folder(null_stack: Stack) -> SnapshotFolder:
    """The stack's snapshots; two are there."""
    folder = SnapshotFolder(null_stack.home / "index")
    while len(folder.names()) < 2:
        _enqueue(null_stack, namespace="before")
        wait_until_saved(null_stack)
    return folder


@pytest.mark.parametrize(
    ("point", "action"), [*((point, "kill") for point in _POINTS), ("snapshot.flushed", "raise")]
)
def test_f08_an_indexer_that_dies_at_any_step_of_a_save_goes_on_from_a_whole_snapshot(
    null_stack: Stack, folder: SnapshotFolder, point: Failpoint, action: Action
) -> None:
    namespace = f"f08 {point} {action}"
    indexer = wait_until_ready(null_stack, "indexer")
    before, quarantined = folder.current(), _quarantined(folder)
    log = LogFrom(null_stack, "indexer")
    with nothing_restarts(null_stack):
        arm(null_stack, point, action)
        receipts = _enqueue(null_stack, namespace)
        assert wait_until_reached(null_stack, point) == indexer.pid
        wait_until_dead(indexer)
        current = folder.current()
        assert current is not None
        folder.check(current)
        assert (current != before) == (point in _POINTED_TO)
        assert bool(_unfinished(folder)) == (point in _UNFINISHED)
    assert_kept(null_stack, receipts, namespace=namespace)
    receipts = [*receipts, *_enqueue(null_stack, namespace)]
    wait_until_saved(null_stack)
    assert_kept(null_stack, receipts, namespace=namespace)
    wait_until(
        lambda: _unfinished(folder) == [] and len(folder.names()) == 2, timeout_s=30, why="two are kept"
    )
    for name in folder.names():
        folder.check(name)
    assert _quarantined(folder) == quarantined
    assert len(log.lines("snapshot_loaded")) == 1
    assert log.lines("index_rebuilt") + log.lines("snapshot_refused") == []


def _enqueue(stack: Stack, namespace: str) -> list[Receipt]:
    with stack.client() as client:
        return list(
            client.enqueue_many([{"content": f"memory {i}", "namespace": namespace} for i in range(20)])
        )


def _unfinished(folder: SnapshotFolder) -> list[Path]:
    return list(folder.directory.glob("snapshots/tmp-*"))


def _quarantined(folder: SnapshotFolder) -> list[Path]:
    return sorted(folder.directory.glob("quarantine/*"))
