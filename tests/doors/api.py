"""The HTTP API over a stack of the tests: served, with keys, asked."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from api_stub.home import running_stack
from memory.api_keys import key_draft
from memory.database import Database
from memory.store.api_keys import ApiKeys
from tests.pipeline.stack import MEMORY, Stack
from tests.waiting import wait_until


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(
    stack: Stack, *arguments: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `memory api` on a port of its own; its log is `api-PORT.log` in the stack's home."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (stack.home / f"api-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [*MEMORY, "api", "--port", str(port), *arguments],
            env={**os.environ, **stack.environment, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(url, process), timeout_s=60, why="the API answers")
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def new_key(stack: Stack, *namespaces: str, scopes: str = "read write", requests_a_minute: int = 6000) -> str:
    """A new key of these namespaces, of all where none is named."""
    found = running_stack(stack.home)
    assert found is not None
    database = Database(found.db_url)
    draft = key_draft(
        name="a test",
        scopes=scopes.split(),
        namespaces=namespaces or None,
        requests_a_minute=requests_a_minute,
    )
    _, key = ApiKeys(database).create(draft)
    database.close()
    return key


def api(url: str, key: str, **options: Any) -> httpx2.Client:
    """A plain HTTP client with a key."""
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, **options)
