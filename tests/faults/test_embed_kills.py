"""An embed worker that dies or fails at any moment: all that was accepted is stored, and stored once."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from ingest.producer import Enqueued
from memory.errors import NotFound
from memory.failpoints import Failpoint
from memory.models import MemoryState
from memory.store.event_log import EventLog
from tests.faults.load import load
from tests.faults.null_stack import (
    Action,
    LogFrom,
    arm,
    assert_index_equal,
    assert_kept,
    database_of,
    n_on_streams,
    n_rows,
    nothing_restarts,
    wait_until_dead,
    wait_until_idle,
    wait_until_reached,
    wait_until_ready,
)
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_POINTS = [point for point in get_args(Failpoint) if point.startswith("embed.")]
_N = 40  # small enough to be delivered again as one group


def test_f01_a_worker_killed_at_random_moments_under_load_loses_and_doubles_nothing(
    null_stack: Stack,
) -> None:
    chance = random.Random(1)
    with load(null_stack, namespace="f01") as running:
        for _ in range(6):
            worker = wait_until_ready(null_stack, "embed-1")
            enough = n_rows(null_stack, "f01") + chance.randint(1, 400)
            wait_until(lambda n=enough: n_rows(null_stack, "f01") >= n, timeout_s=60, why="it stores")
            worker.kill()
            wait_until_dead(worker)
    assert len(running.accepted) > 100
    assert_kept(null_stack, running.accepted, namespace="f01")


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", _POINTS)
def test_f02_a_worker_that_dies_or_fails_at_any_step_of_a_batch_loses_and_doubles_nothing(
    null_stack: Stack, point: Failpoint, action: Action
) -> None:
    namespace = f"f02 {point} {action}"
    worker = wait_until_ready(null_stack, "embed-1")
    with nothing_restarts(null_stack):
        arm(null_stack, point, action)
        receipts = _enqueue(null_stack, namespace)
        assert wait_until_reached(null_stack, point) == worker.pid
        if action == "kill":
            wait_until_dead(worker)
            _assert_left_halfway(null_stack, namespace, point)
    assert_kept(null_stack, receipts, namespace=namespace)
    assert (null_stack.child("embed-1").pid == worker.pid) == (action == "raise")


def test_f02_after_a_commit_that_was_not_acknowledged_one_redelivery_adds_no_row_and_no_event(
    null_stack: Stack,
) -> None:
    wait_until_ready(null_stack, "embed-1")
    with nothing_restarts(null_stack):
        arm(null_stack, "embed.committed", "kill")
        receipts = _enqueue(null_stack, "f02 again")
        wait_until_reached(null_stack, "embed.committed")
        assert n_rows(null_stack, "f02 again") == _N
        head, log = _head(null_stack), LogFrom(null_stack, "embed-1")
    wait_until_idle(null_stack)
    [line] = log.lines("batch_stored")
    assert f"n_new=0 n_known={_N} " in line
    assert _head(null_stack) == head
    assert_kept(null_stack, receipts, namespace="f02 again")


def test_f13_a_memory_deleted_between_its_commit_and_its_redelivery_stays_deleted(null_stack: Stack) -> None:
    worker = wait_until_ready(null_stack, "embed-1")
    with null_stack.client() as client:
        with nothing_restarts(null_stack):
            arm(null_stack, "embed.committed", "kill")
            receipt = client.enqueue("The key is under the pot", namespace="f13")
            wait_until_reached(null_stack, "embed.committed")
            wait_until_dead(worker)
            memory_id = client.get_by_uid(receipt.uid, namespace="f13").id
            removal = client.delete(memory_id)
            assert n_on_streams(null_stack) == 1
        wait_until_idle(null_stack)
        outcome = client.wait(receipt, timeout_s=30)
        assert (outcome.state, outcome.id) == (MemoryState.DELETED, memory_id)
        assert n_rows(null_stack, "f13") == 1
        with pytest.raises(NotFound):
            client.get_by_uid(receipt.uid, namespace="f13")
        assert client.search("key", namespace="f13", min_seq=removal, timeout_s=30) == []
    assert_index_equal(null_stack)


def _enqueue(stack: Stack, namespace: str) -> Enqueued:
    with stack.client() as client:
        return client.enqueue_many([{"content": f"memory {i}", "namespace": namespace} for i in range(_N)])


def _assert_left_halfway(stack: Stack, namespace: str, point: Failpoint) -> None:
    is_committed = point in {"embed.committed", "embed.acknowledged"}
    assert n_rows(stack, namespace) == (_N if is_committed else 0)
    assert n_on_streams(stack) == (0 if point == "embed.acknowledged" else _N)


def _head(stack: Stack) -> int:
    with database_of(stack) as database:
        return EventLog(database).head()
