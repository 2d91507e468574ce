"""Real processes for the tests of the stack: children of a few lines, and stacks that end with their test."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from api_stub.stack.children import ChildSpec
from api_stub.stack.supervisor import Supervisor
from api_stub.stack.watched import ChildStatus
from tests.waiting import wait_until


def python_child(
    name: str,
    source: str,
    *,
    home: Path,
    is_ready: Callable[[], bool] | None = None,
    start_timeout_s: float = 60.0,
) -> ChildSpec:
    """A child that runs a few lines of Python in `home`; ready once it has made a file of its own name."""
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-S", "-c", source),
        cwd=home,
        log_path=home / f"{name}.log",
        is_ready=is_ready or (home / name).exists,
        start_timeout_s=start_timeout_s,
    )


@contextlib.contextmanager
def running(*specs: ChildSpec) -> Iterator[Supervisor]:
    """Run the children as one stage."""
    supervisor = Supervisor(stages=[specs], say=print)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def kill_child(child: ChildStatus) -> None:
    """Kill it as a crash would."""
    assert child.pid, "a number of 0 would kill this process and all of its group"
    os.kill(child.pid, signal.SIGKILL)


def wait_for_restart(supervisor: Supervisor, *, n_restarts: int = 1) -> None:
    """Watch until the only child is ready again."""

    def is_back() -> bool:
        supervisor.poll()
        [child] = supervisor.children()
        return child.ready and child.n_restarts == n_restarts

    wait_until(is_back, timeout_s=20, why=f"the child was restarted {n_restarts} times and is ready")


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those still running. A process that has ended but was not collected by its parent is not."""
    return [process for process in processes if _runs(process)]


def processes_that_name(directory: Path) -> list[psutil.Process]:
    """Those still running whose command line or environment names this directory."""
    return [process for process in psutil.process_iter() if _names(process, str(directory))]


def _names(process: psutil.Process, name: str) -> bool:
    try:
        return any(name in word for word in (*process.cmdline(), *process.environ().values()))
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone, or somebody else's
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
