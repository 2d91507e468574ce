"""F11: however many tickers there are, and whatever clocks say, a scheduled job runs once a period."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from api_stub.home import running_stack
from memory.database import database_now
from memory.models import MemoryState
from memory.schema import job_runs
from memory.store.jobs import CLEANUP, TICKER, JobRun, Jobs
from tests.faults.null_stack import LogFrom, beside, database_of, wait_until_idle
from tests.faults.test_servers_away import frozen
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_PERIOD = timedelta(days=1)  # the default
_N_TICKS = 6  # after which a second run would have been


def test_f11_two_tickers_and_two_workers_run_one_cleanup_a_period(null_stack: Stack, home: Path) -> None:
    with (
        beside(null_stack, "embed", "--name", "embed-2", log="embed-2"),
        another(null_stack, "workers", "beat", home=home),
    ):
        wait_until((home / "heartbeats" / "beat").exists, timeout_s=60, why="the second ticker ticks")
        wait_until(
            (null_stack.home / "heartbeats" / "embed-2").exists, timeout_s=60, why="the second worker works"
        )
        logs = [LogFrom(null_stack, name) for name in ("embed-1", "embed-2")]
        for _ in range(3):
            n_before = n_cleanups(logs)
            pass_time(null_stack, _PERIOD, name=CLEANUP)
            wait_until_cleaned_up(null_stack, logs, n_before)
            assert n_cleanups(logs) == n_before + 1


def test_f11_what_fell_due_while_nothing_ticked_is_made_up_for_once(null_stack: Stack) -> None:
    logs = [LogFrom(null_stack, "embed-1")]
    with frozen(null_stack.child("beat")), null_stack.client() as client:
        wait_until_idle(null_stack)
        pass_time(null_stack, timedelta(hours=1), name=TICKER)
        pass_time(null_stack, 24 * _PERIOD, name=CLEANUP)
        assert "ticker" in str(client.status().verdict.as_json())
    wait_until_cleaned_up(null_stack, logs, 0)
    assert n_cleanups(logs) == 1


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_f11_a_worker_whose_clock_is_an_hour_off_stores_what_comes(
    null_stack: Stack, home: Path, hours: int
) -> None:
    wait_until_idle(null_stack)
    with alone_with_wrong_clock(null_stack, home, hours=hours), null_stack.client() as client:
        receipt = client.enqueue("What time is it?", namespace=f"f11 {hours}")
        assert client.wait(receipt, timeout_s=60).state is MemoryState.SEARCHABLE


def test_f11_a_job_is_due_by_the_database_s_clock_whatever_the_worker_s_says(
    null_stack: Stack, home: Path
) -> None:
    wait_until_idle(null_stack)
    half_an_hour = timedelta(minutes=30)
    with alone_with_wrong_clock(null_stack, home, hours=-1):
        pass_time(null_stack, _PERIOD - half_an_hour, name=CLEANUP)
        started_at = job(null_stack, CLEANUP).last_start_at
        wait_for_ticks(null_stack, owner="embed-off")
        assert job(null_stack, CLEANUP).last_start_at == started_at
        pass_time(null_stack, _PERIOD + half_an_hour, name=CLEANUP)
        wait_until(
            lambda: job(null_stack, CLEANUP).last_start_at != started_at, timeout_s=60, why="it is run"
        )


@contextlib.contextmanager
def alone_with_wrong_clock(stack: Stack, home: Path, *, hours: int) -> Iterator[None]:
    """Let the only worker be one whose clock is off by so many hours."""
    program = ("tests.faults.wrong_clock", str(hours * 3600), "embed", "--name", "embed-off")
    with frozen(stack.child("embed-1")), another(stack, *program, home=home):
        yield


def n_cleanups(logs: list[LogFrom]) -> int:
    return sum(len(log.lines("cleanup_done")) for log in logs)


def wait_until_cleaned_up(stack: Stack, logs: list[LogFrom], n_before: int) -> None:
    """Wait for a run, and for some ticks more, at which there could be a second one."""
    wait_until(lambda: n_cleanups(logs) > n_before, timeout_s=60, why="the cleanup ran")
    wait_for_ticks(stack)


def wait_for_ticks(stack: Stack, *, owner: str | None = None) -> None:
    """Wait for some ticks that a worker heard, this one where given."""
    for _ in range(_N_TICKS):
        last = job(stack, TICKER).last_ok_at
        wait_until(lambda last=last: _ticked(stack, last, owner), timeout_s=60, why="it ticks")


def _ticked(stack: Stack, last: datetime | None, owner: str | None) -> bool:
    ticker = job(stack, TICKER)
    return ticker.last_ok_at != last and owner in {None, ticker.owner}


def pass_time(stack: Stack, passed: timedelta, *, name: str) -> None:
    """Let a job's last good run be so much longer ago."""
    wait_until(lambda: name in {j.name for j in jobs(stack)}, timeout_s=60, why=f"{name} is known")
    with database_of(stack) as database, database.write() as connection:
        statement = update(job_runs).where(job_runs.c.name == name)
        connection.execute(statement.values(last_ok_at=database_now(connection) - passed))


def job(stack: Stack, name: str) -> JobRun:
    return next(j for j in jobs(stack) if j.name == name)


def jobs(stack: Stack) -> list[JobRun]:
    with database_of(stack) as database:
        return Jobs(database).all()


@contextlib.contextmanager
def another(stack: Stack, module: str, *arguments: str, home: Path) -> Iterator[None]:
    """Run one more process of the stack's, with its servers, and a home of its own."""
    found = running_stack(stack.home)
    assert found is not None
    servers = {"REDIS_URL": found.redis_url, "MEMORY_DB_URL": found.db_url, "MEMORY_HOME": str(home)}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            env={**os.environ, **stack.environment, **servers},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=20)
