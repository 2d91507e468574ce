"""One child process: how it is started, how it is stopped, and how it ends when its parent is killed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PARENT_GONE = 1
_TAIL_BYTES = 8192
_LOOK_EVERY_S = 0.02

# Loaded here because little is safe between fork and exec. PyDLL keeps the interpreter lock during the call.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user and group a child runs as; it keeps no supplementary group. Only root can ask for it."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run. `env` is added to our own environment; `log_path` gets stdout and stderr, appended.

    `is_ready` answers within a second and never raises; without it a child is ready once it has lived for
    half a second. `death_signal` is what the child gets from the kernel when its parent dies.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    run_as: RunAs | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    is_ready: Callable[[], bool] | None = None
    start_timeout_s: float = 60.0


def spawn(spec: ChildSpec) -> subprocess.Popen[bytes]:
    """Start the child in a process group of its own. Raises OSError when it can't be started.

    The kernel sends the death signal when the spawning *thread* ends: spawn from one that lives long enough.
    """
    spec.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = os.open(spec.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - argv is ours, and no shell reads it
            spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=spec.cwd,
            env={**os.environ, **spec.env},
            process_group=0,
            user=spec.run_as.uid if spec.run_as else None,
            group=spec.run_as.gid if spec.run_as else None,
            extra_groups=[] if spec.run_as else None,
            # Runs after the change of user, which would have cleared the death signal.
            preexec_fn=functools.partial(_die_with_parent, os.getpid(), int(spec.death_signal)),  # noqa: PLW1509
        )
    finally:
        os.close(log)


def ask_to_stop(process: subprocess.Popen[bytes], spec: ChildSpec) -> None:
    """Send the stop signal to the child alone: it knows best how to end the processes it started."""
    if exit_status(process) is None:
        process.send_signal(spec.stop_signal)


def exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """Return None while it runs, then its exit code, or minus the signal that ended it.

    What it left behind in its process group is killed.
    """
    if process.returncode is None and process.poll() is not None:
        _kill_group(process.pid)
    return process.returncode


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child with its process group, and wait for its end. Does nothing once it has ended."""
    if exit_status(process) is None:
        kill_without_waiting(process)
        process.wait()


def kill_without_waiting(process: subprocess.Popen[bytes]) -> None:
    """Kill the child with its process group. Takes no lock: a signal handler may call it."""
    if process.returncode is None:
        _kill_group(process.pid)


def stop(process: subprocess.Popen[bytes], spec: ChildSpec, *, timeout_s: float) -> bool:
    """Ask the child to stop and wait; kill it when it is late. Returns whether it ended by itself."""
    deadline = time.monotonic() + timeout_s
    ask_to_stop(process, spec)
    while exit_status(process) is None:
        if time.monotonic() >= deadline:
            kill(process)
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def last_lines(log_path: Path, *, n_lines: int = 15) -> str:
    """Return the end of a log for an error message."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-n_lines:]) or "(the log is empty)"


def _die_with_parent(parent_pid: int, death_signal: int) -> None:
    """Run in the child between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal)
    # The parent may have died before prctl; then no signal would ever come.
    if os.getppid() != parent_pid:
        os._exit(_PARENT_GONE)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
