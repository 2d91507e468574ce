"""One running stack in a directory of its own, and its processes: find them, see them ready again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api_stub.home import RunningStack, running_stack
from api_stub.stack.children import last_lines
from memory.database import Database
from memory.errors import MemorySystemError
from memory.settings import Settings, read_settings

ROOT = Path(__file__).parents[1]
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
READY_TIMEOUT_S = 120
_LOOK_EVERY_S = 0.02

_SERVERS = {"redis": "127.0.0.1:", "postgres": "postgres -D"}


class StackFailed(Exception):
    """The stack ended by itself, or a process of it does not come back."""


@dataclass
class Stack:
    """A running stack.

    Args:
        home: its MEMORY_HOME.
        process: the one that supervises the others.
        words: what a process's command line contains, by its name.

    """

    home: Path
    process: subprocess.Popen[bytes]
    words: Mapping[str, str]
    _probes: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> RunningStack:
        """Where it can be reached."""
        found = running_stack(self.home)
        if found is None or self.process.poll() is not None:
            raise StackFailed(f"the stack has ended by itself:\n{last_lines(self.home / 'up.log')}")
        return found

    def settings(self) -> Settings:
        """Settings of a client of it."""
        place = self.place
        return read_settings(home=self.home, redis_url=place.redis_url, db_url=place.db_url)

    def redis(self, purpose: Literal["broker", "results", "ingest"]) -> redis.Redis:
        """One of its Redis databases, past every door."""
        client: redis.Redis = redis.Redis.from_url(
            self.settings().redis_database_url(purpose),
            socket_timeout=5,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        return client

    def child(self, name: str, *, not_pid: int | None = None) -> psutil.Process | None:
        """Return the process of this name, `None` while it is not there. `not_pid` is its last, dead one."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children():
                if process.pid != not_pid and self._runs(process, name):
                    return process
        return None

    def wait_ready(self, name: str, *, not_pid: int | None) -> psutil.Process:
        """Wait until a process of this name has shown that it works, and return it.

        Raises:
            StackFailed: it has not within `READY_TIMEOUT_S`.

        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            process = self.child(name, not_pid=not_pid)
            if process and self._works(process, name):
                return process
            _ = self.place
            time.sleep(_LOOK_EVERY_S)
        raise StackFailed(f"{name} was not ready within {READY_TIMEOUT_S} s; see {self.home / 'logs'}")

    def stop(self) -> int:
        """Stop it as a user would; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _runs(self, process: psutil.Process, name: str) -> bool:
        try:
            return self.words[name] in " ".join(process.cmdline()) and (
                process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False

    def _works(self, process: psutil.Process, name: str) -> bool:
        if name in _SERVERS:
            return self._answers(name)
        try:
            sign = (self.home / "heartbeats" / name).stat().st_mtime
            return sign > process.create_time() + 0.1  # the one before may have died in the same moment
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False

    def _answers(self, name: str) -> bool:
        if name not in self._probes:
            self._probes[name] = (
                self.redis("ingest") if name == "redis" else Database(self.settings().database_url)
            )
        try:
            if name == "redis":
                return bool(self._probes[name].ping())
            with self._probes[name].read() as connection:
                connection.exec_driver_sql("SELECT 1")
        except (redis.RedisError, MemorySystemError):
            return False
        return True


@contextlib.contextmanager
def running(
    home: Path,
    module: Sequence[str],
    *,
    words: Mapping[str, str],
    environment: Mapping[str, str],
    start_timeout_s: float = _START_TIMEOUT_S,
) -> Iterator[Stack]:
    """Run a stack until the end of the block.

    Args:
        home: its MEMORY_HOME.
        module: what `python -m` runs, with its arguments; it announces itself in `home`.
        words: what the command line of each process contains, by its name.
        environment: its settings; none is taken from ours but those of the model.
        start_timeout_s: until it is ready.

    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEMORY_", "REDIS_", "FAISS_"))}
    mine = {**environment, "MEMORY_HOME": str(home), "PYTHONPATH": str(ROOT)}
    log_path = home / "up.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *module], env={**inherited, **mine}, cwd=home, stdout=log, stderr=log
        )
    stack = Stack(home=home, process=process, words={**_SERVERS, **words})
    try:
        _wait_until_up(stack, timeout_s=start_timeout_s)
        yield stack
    finally:
        stack.stop()


def _wait_until_up(stack: Stack, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ((found := running_stack(stack.home)) and found.ready):
        if stack.process.poll() is not None or time.monotonic() > deadline:
            raise StackFailed(f"the stack did not start:\n{last_lines(stack.home / 'up.log')}")
        time.sleep(_LOOK_EVERY_S)
