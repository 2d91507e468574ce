"""The HTTP API over a measured stack, as a process of its own, and a key that opens all of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from api_stub.stack.probes import http_answers
from benchmarks.rig.stacks import Measured
from benchmarks.rig.waiting import wait_for
from memory.api_keys import KeyScope, key_draft
from memory.database import Database
from memory.store.api_keys import ApiKeys

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where it answers, what opens it, and its process."""

    url: str
    key: str
    process: psutil.Process


@contextlib.contextmanager
def serving(measured: Measured) -> Iterator[Served]:
    """Run `memory api` until the end of the block; its log is `api.log` in the stack's home."""
    home, port = measured.stack.home, _free_port()
    command = [sys.executable, "-P", "-m", "api_stub.commands.app", "api", "--port", str(port)]
    with (home / "api.log").open("ab") as log:
        environment = {**os.environ, "MEMORY_HOME": str(home)}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(
            lambda: http_answers(port=port, path="/healthz"),
            timeout_s=_START_TIMEOUT_S,
            what="the API answers",
        )
        yield Served(
            url=f"http://127.0.0.1:{port}", key=new_key(measured), process=psutil.Process(process.pid)
        )
    finally:
        process.terminate()
        process.wait(timeout=_STOP_TIMEOUT_S)


def new_key(measured: Measured, *namespaces: str) -> str:
    """Return a new key that nothing slows down, of these namespaces; of all where none is named."""
    database = Database(measured.stack.settings().database_url)
    try:
        draft = key_draft(
            name="benchmark",
            scopes=[scope.value for scope in KeyScope],
            namespaces=namespaces or None,
            requests_a_minute=1_000_000,
        )
        return ApiKeys(database).create(draft)[1]
    finally:
        database.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
