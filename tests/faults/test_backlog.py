"""F20: one fast memory passes a backlog of any length."""

from __future__ import annotations

import os

import pytest

from memory.models import MemoryState
from memory.store.event_log import EventLog
from tests.faults.null_stack import database_of, n_on_streams, wait_until_idle
from tests.faults.test_servers_away import frozen
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_N_BACKLOG = int(os.environ.get("EVERKEPT_TEST_BACKLOG", "10000"))
_BATCH = 512


def test_f20_a_single_memory_is_searchable_long_before_the_backlog_in_front_of_it(null_stack: Stack) -> None:
    wait_until_idle(null_stack)
    with null_stack.client() as client:
        with frozen(null_stack.child("embed-1")):
            backlog = [{"content": f"import {i}", "namespace": "f20 backlog"} for i in range(_N_BACKLOG)]
            assert len(client.enqueue_many(backlog)) == _N_BACKLOG
        wait_until(lambda: n_on_streams(null_stack) < 0.9 * _N_BACKLOG, timeout_s=60, why="it is worked on")
        single = client.enqueue("a chat turn", namespace="f20")
        with database_of(null_stack) as database:
            stored_before = EventLog(database).head()
        outcome = client.wait(single, timeout_s=60)
        assert outcome.state is MemoryState.SEARCHABLE
        assert n_on_streams(null_stack) > 0.2 * _N_BACKLOG
        assert outcome.seq is not None
        assert outcome.seq <= stored_before + 2 * _BATCH  # the one in hand, the one being committed
        assert len(client.search("a chat turn", namespace="f20", min_seq=outcome.seq, timeout_s=60)) == 1
    wait_until_idle(null_stack)
