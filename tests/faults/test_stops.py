"""SIGTERM under load: every process ends by itself within ten seconds, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.load import load
from tests.faults.null_stack import (
    LogFrom,
    assert_kept,
    n_rows,
    running_null_stack,
    wait_until_ready,
)
from tests.pipeline.processes import alive
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_WITHIN_S = 10
_PROCESSES = ("embed-1", "indexer", "beat")
_N_ROUNDS = 7  # with three processes, more than twenty signals


def test_f17_a_process_told_to_stop_under_load_ends_by_itself_within_ten_seconds_and_nothing_is_lost(
    null_stack: Stack,
) -> None:
    news = LogFrom(null_stack, "up")
    with load(null_stack, namespace="f17") as running:
        for n in range(_N_ROUNDS):
            processes = [_working(null_stack, name, namespace="f17") for name in _PROCESSES]
            for process in processes:
                process.terminate()
            wait_until(lambda p=processes: alive(p) == [], timeout_s=_WITHIN_S, why="all three have ended")
            wait_until(lambda n=n: _n_ends(news) == 3 * (n + 1), timeout_s=30, why="they were seen to end")
    assert {line.partition(", ")[0] for line in news.lines("died")} == {
        f"{name} died (exit code {os.EX_OK})" for name in _PROCESSES
    }
    assert_kept(null_stack, running.accepted, namespace="f17")


def test_f17_a_stack_told_to_stop_under_load_ends_by_itself_and_goes_on_where_it_was(home: Path) -> None:
    with running_null_stack(home) as stack:
        with load(stack, namespace="f17") as running:
            wait_until(lambda: n_rows(stack, "f17") > 500, timeout_s=60, why="it works")
            processes = stack.processes()
            started_s = time.monotonic()
            stack.process.send_signal(signal.SIGTERM)
            wait_until(lambda: alive(processes[1:]) == [], timeout_s=60, why="all are gone")
            took_s = time.monotonic() - started_s
        assert stack.process.wait(timeout=20) == os.EX_OK  # 1: it had to kill somebody
    assert took_s < _WITHIN_S
    with running_null_stack(home) as again:
        assert_kept(again, running.accepted, namespace="f17", n_unsure=running.n_unsure)


def _working(stack: Stack, name: str, *, namespace: str) -> psutil.Process:
    """Wait until a process does its work, not only runs: a signal during its imports just ends it."""
    process = wait_until_ready(stack, name)
    if name == "embed-1":
        n_before = n_rows(stack, namespace)
        wait_until(lambda: n_rows(stack, namespace) > n_before, timeout_s=60, why="it stores")
    if name == "indexer":
        with stack.client() as client:
            client.search("anything", namespace=namespace, timeout_s=60)
    return process


def _n_ends(news: LogFrom) -> int:
    return len(news.lines("died"))
