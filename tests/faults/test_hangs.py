"""An embed worker that hangs or is paused: it ends by itself, or another takes over; nothing is doubled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from memory.failpoints import Failpoint
from memory.stream import GROUP, LANES, stream_key
from tests.faults.null_stack import (
    LogFrom,
    arm,
    assert_kept,
    beside,
    database_of,
    n_on_streams,
    n_rows,
    running_null_stack,
    wait_until_dead,
    wait_until_idle,
    wait_until_reached,
    wait_until_ready,
)
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_N = 40
_WATCHDOG_S = 2


@pytest.fixture(scope="module")
def watched_stack(shared_home: Path) -> Iterator[Stack]:
    """A stack whose workers may stand still for two seconds."""
    with running_null_stack(shared_home, MEMORY_WATCHDOG_S=str(_WATCHDOG_S)) as stack:
        yield stack


@pytest.mark.parametrize("point", ["embed.read", "embed.embedded", "embed.before_commit"])
def test_f18_a_worker_that_hangs_ends_by_itself_with_a_traceback_and_its_batch_is_stored(
    watched_stack: Stack, point: Failpoint
) -> None:
    namespace = f"f18 {point}"
    worker = wait_until_ready(watched_stack, "embed-1")
    log, news = LogFrom(watched_stack, "embed-1"), LogFrom(watched_stack, "up")
    arm(watched_stack, point, "hang")
    with watched_stack.client() as client:
        receipts = client.enqueue_many(
            [{"content": f"memory {i}", "namespace": namespace} for i in range(_N)]
        )
    assert wait_until_reached(watched_stack, point) == worker.pid
    wait_until_dead(worker, timeout_s=30)
    assert log.lines("Timeout (0:00:02)!")
    assert log.lines("in reach")
    wait_until(lambda: news.lines("embed-1 died (exit code 1)"), timeout_s=30, why="it ended by itself")
    assert_kept(watched_stack, list(receipts), namespace=namespace)


def test_f18_a_paused_worker_is_relieved_by_another_and_doubles_nothing_when_it_goes_on(
    watched_stack: Stack,
) -> None:
    first = wait_until_ready(watched_stack, "embed-1")
    log = LogFrom(watched_stack, "embed-2")
    with beside(
        watched_stack, "embed", "--name", "embed-2", log="embed-2", MEMORY_WATCHDOG_S="600"
    ) as second:
        wait_until(lambda: log.lines(" ready."), timeout_s=60, why="the second worker is there")
        with watched_stack.client() as client, _locked_table(watched_stack) as waits, _paused(first):
            receipts = client.enqueue_many(
                [{"content": f"memory {i}", "namespace": "f18"} for i in range(_N)]
            )
            wait_until(
                lambda: _n_held(watched_stack, "embed-2") == _N, timeout_s=60, why="the second has them"
            )
            wait_until(waits, timeout_s=60, why="it asks the database")
            second.suspend()
        wait_until(lambda: n_rows(watched_stack, "f18") == _N, timeout_s=60, why="the first one relieves it")
        wait_until_idle(watched_stack)
        second.resume()
        wait_until(lambda: log.lines("batch_stored"), timeout_s=60, why="the second one goes on")
        assert "n_new=0 " in log.lines("batch_stored")[0]
        assert n_on_streams(watched_stack) == 0
        assert_kept(watched_stack, list(receipts), namespace="f18")


def _n_held(stack: Stack, consumer: str) -> int:
    """Count what was delivered to a worker and is not acknowledged. Others ask the locked table too."""
    with stack.redis("ingest") as server:
        return sum(
            len(server.xpending_range(stream_key(lane), GROUP, "-", "+", _N, consumername=consumer))
            for lane in LANES
        )


@contextlib.contextmanager
def _locked_table(stack: Stack) -> Iterator[object]:
    """Lock the memories; gives a function that says whether somebody waits for them."""
    with database_of(stack) as database, database.write() as connection:
        connection.execute(text("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE"))

        def somebody_waits() -> bool:
            statement = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'memories'::regclass"
            return bool(connection.scalar(text(statement)))

        yield somebody_waits


@contextlib.contextmanager
def _paused(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()
