"""The embed worker's own tick rests while the drain is run by others, and never ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.testing import capture_logs

from tests.waiting import wait_until
from workers.own_tick import OwnTick

TICK_S = 0.02


def test_a_drain_that_nobody_runs_is_run_again_and_again_even_where_it_fails() -> None:
    runs: list[float] = []

    def fail() -> None:
        runs.append(time.monotonic())
        message = "whatever"
        raise RuntimeError(message)

    with capture_logs() as said:
        _start(fail, ran_at=lambda: -1e9 if len(runs) < 3 else time.monotonic())
        wait_until(lambda: len(runs) >= 3 and len(said) >= 3, timeout_s=30, why="it is run again and again")
    assert {event["event"] for event in said} == {"own_tick_failed"}


def test_a_drain_that_was_just_run_is_left_alone() -> None:
    asked: list[float] = []
    runs: list[float] = []

    def ran_at() -> float:
        asked.append(time.monotonic())
        return time.monotonic()

    _start(lambda: runs.append(1.0), ran_at=ran_at)
    wait_until(lambda: len(asked) >= 5, timeout_s=30, why="it looked")
    assert runs == []


def _start(run: Callable[[], object], *, ran_at: Callable[[], float]) -> None:
    OwnTick(run, ran_at=ran_at, tick_s=TICK_S).start()
