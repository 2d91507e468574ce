"""A damaged index, or one that does not fit the database: refused with its reason, made anew, and equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from memory.database import Database
from memory.snapshot import SnapshotFolder
from tests.faults.damage import DAMAGES, N_LATER, Scene, copy_index, restore_an_older_database
from tests.faults.null_stack import (
    LogFrom,
    assert_index_equal,
    assert_kept,
    database_of,
    nothing_restarts,
    wait_until_dead,
    wait_until_ready,
    wait_until_saved,
)
from tests.invariants import assert_index_equals_database
from tests.making import caught_up, open_index, raw, store_all
from tests.pipeline.stack import Stack

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("what", DAMAGES)
def test_f09_a_saved_index_that_is_not_what_it_was_is_refused_kept_and_made_anew(
    database: Database, home: Path, what: str
) -> None:
    do, reason = DAMAGES[what]
    folder = SnapshotFolder(home / "index")
    sync = open_index(database, home)
    for n in range(3):
        store_all(database, *(raw(f"memory {n} {i}") for i in range(2 * N_LATER)))
        caught_up(sync).save_snapshot()
        if n == 0:
            copy_index(folder, home / "old")
    do(Scene(folder=folder, database=database, old_copy=home / "old"))
    refused = folder.current()
    with capture_logs() as logs:
        again = open_index(database, home)
    [event] = [e for e in logs if e["event"] == "snapshot_refused"]
    assert reason in event["reason"]
    assert (event["kept"] is None) == (refused is None)
    assert_index_equals_database(again)
    again.save_snapshot()
    assert_index_equals_database(open_index(database, home))


@pytest.fixture(scope="module")
def old_copy(null_stack: Stack) -> Path:
    """A copy of the stack's index from before events were pruned."""
    target = null_stack.home / "old-index"
    for n in range(3):
        _store(null_stack, namespace=f"f09 copy {n}")
        if n == 0:
            indexer = wait_until_ready(null_stack, "indexer")
            indexer.suspend()  # else it may remove what is being copied
            try:
                copy_index(SnapshotFolder(null_stack.home / "index"), target)
            finally:
                indexer.resume()
    return target


@pytest.mark.parametrize("what", ["a bit flipped", "an older copy put back", "an older database restored"])
def test_f09_an_indexer_that_finds_its_saved_index_damaged_answers_from_a_new_one(
    null_stack: Stack, old_copy: Path, what: str
) -> None:
    do, reason = DAMAGES[what]
    namespace = f"f09 {what}"
    _store(null_stack, namespace)
    indexer = wait_until_ready(null_stack, "indexer")
    log = LogFrom(null_stack, "indexer")
    with nothing_restarts(null_stack), database_of(null_stack) as database:
        indexer.kill()
        wait_until_dead(indexer)
        folder = SnapshotFolder(null_stack.home / "index")
        do(Scene(folder=folder, database=database, old_copy=old_copy))
    wait_until_ready(null_stack, "indexer")
    assert_index_equal(null_stack)
    [line] = log.lines("snapshot_refused")
    assert reason in line
    with null_stack.client() as client:
        assert_kept(
            null_stack, [client.enqueue("afterwards", namespace=f"{namespace} 2")], namespace=f"{namespace} 2"
        )


def _store(stack: Stack, namespace: str) -> None:
    with stack.client() as client:
        drafts = [{"content": f"memory {i}", "namespace": namespace} for i in range(2 * N_LATER)]
        client.wait(client.enqueue_many(drafts), timeout_s=60)
    wait_until_saved(stack)


def test_f09_an_older_database_that_was_written_to_again_gets_a_new_index(
    database: Database, home: Path
) -> None:
    sync = open_index(database, home)
    for n in range(2):
        store_all(database, *(raw(f"memory {n} {i}") for i in range(2 * N_LATER)))
        caught_up(sync).save_snapshot()
    restore_an_older_database(
        Scene(folder=SnapshotFolder(home / "index"), database=database, old_copy=home / "old")
    )
    store_all(database, *(raw(f"other {i}") for i in range(2 * N_LATER)))
    assert_index_equals_database(open_index(database, home))
