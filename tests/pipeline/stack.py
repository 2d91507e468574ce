"""A whole running stack, as `memory up` starts it, and the command line against it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from api_stub.home import running_stack
from api_stub.pipeline_client import PipelineClient
from memory.settings import read_settings
from tests.pipeline.processes import alive
from tests.waiting import wait_until

MEMORY = (sys.executable, "-P", "-m", "api_stub.commands.app")


@dataclass(frozen=True)
class Stack:
    """One running `memory up`."""

    home: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]

    def client(self) -> PipelineClient:
        """A client of this stack."""
        found = running_stack(self.home)
        assert found is not None
        return PipelineClient(read_settings(home=self.home, redis_url=found.redis_url, db_url=found.db_url))

    def redis(self, purpose: Any) -> redis.Redis:
        """One of the stack's Redis databases, past every door."""
        found = running_stack(self.home)
        assert found is not None
        settings = read_settings(redis_url=found.redis_url)
        return redis.Redis.from_url(settings.redis_database_url(purpose))

    def memory(self, *arguments: str, stdin: str = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line."""
        done = subprocess.run(
            [*MEMORY, *arguments],
            env={**os.environ, **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, stdin: str = "", expect: int = 0) -> Any:
        """Run one command with --json; return what it printed."""
        return json.loads(self.memory(*arguments, "--json", stdin=stdin, expect=expect).stdout)

    def processes(self) -> list[psutil.Process]:
        """The stack's own process and all below it."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """The child of this name, waited for: it may just be restarting."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(self.process.pid).children()
                found[:] = [c for c in children if _runs(c, name)]
            return bool(found)

        wait_until(is_there, timeout_s=15, why=f"{name} runs")
        return found[0]


def running_up(home: Path, *arguments: str, **environment: str) -> AbstractContextManager[Stack]:
    """Run `memory up` until the end of the block; then nothing of it may be left.

    One worker embeds, unless the environment says otherwise.
    """
    workers = () if "MEMORY_EMBED_WORKERS" in environment else ("--embed-workers", "1")
    return running_command(home, (*MEMORY, "up", *workers, *arguments), environment)


@contextlib.contextmanager
def running_command(home: Path, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Stack]:
    """Run what announces itself in `home` as `memory up` does; then nothing of it may be left."""
    # The children take over what they find; only the test's own values may be there.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEMORY_", "REDIS_", "FAISS_"))}
    mine = {**environment, "MEMORY_HOME": str(home)}
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(command, env={**inherited, **mine}, stderr=log)
    stack = Stack(home=home, process=process, environment=mine)
    try:
        wait_until(lambda: _is_ready(stack), timeout_s=120, why="the stack is ready")
        yield stack
    finally:
        processes = stack.processes() if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        wait_until(lambda: not alive(processes), timeout_s=10, why="no process of the stack is left")


def _is_ready(stack: Stack) -> bool:
    assert stack.process.poll() is None, (stack.home / "up.log").read_text()
    found = running_stack(stack.home)
    return bool(found and found.ready)


_WORDS = {
    "embed-1": " embed --name embed-1",
    "indexer": " indexer",  # which is a module, or an argument of the stack with a null model
    "beat": "workers beat",
    "redis": "127.0.0.1:",
    "postgres": "postgres -D",
}


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        return _WORDS[name] in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
