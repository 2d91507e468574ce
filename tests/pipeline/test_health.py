"""Health is progress: a running stack says whether it is ok, lagging, degraded or stuck, and why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from api_stub.home import running_stack
from api_stub.pipeline_client import PipelineClient
from memory.database import Database, database_now
from memory.errors import NotFound
from memory.models import MemoryState
from memory.schema import memories
from memory.settings import Settings, read_settings
from memory.verdict import State, Verdict
from tests.pipeline.stack import Stack, running_up
from tests.waiting import wait_until

SETTINGS = {
    "MEMORY_STUCK_AFTER_S": "3",
    "MEMORY_MAINTENANCE_TICK_S": "0.5",
    "MEMORY_SNAPSHOT_EVERY_S": "2",
    "MEMORY_AUDIT_EVERY_S": "1",
}

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        database = {"MEMORY_DB_URL": f"sqlite:///{home}/memories.db"} if request.param == "sqlite" else {}
        with running_up(home, **SETTINGS, **database) as running:
            yield running


def test_a_stack_that_was_just_started_is_ok(stack: Stack) -> None:
    assert _verdict(stack).state is State.OK
    said = stack.memory("status", "--check").stdout
    assert said.startswith("ok: nothing waits for long\n")
    assert stack.json("status")["verdict"]["state"] == "ok"
    _is_ok(stack)
    with stack.client() as client:
        receipt = client.enqueue("the cat sleeps", namespace="rest")
        assert client.wait(receipt, timeout_s=30).state is MemoryState.SEARCHABLE
    _is_ok(stack)
    assert _health(stack, "workers", "embed", "--name", "embed-1") == 0
    assert _health(stack, "indexer") == 0
    assert "ok: " in stack.memory("doctor").stdout


def test_events_that_a_silent_indexer_leaves_are_stuck_and_it_is_named(stack: Stack) -> None:
    with _paused(stack, "indexer"), stack.client() as client:
        client.enqueue("written while nobody indexes", namespace="indexer")
        _becomes(stack, State.STUCK, "the indexer showed itself last")
        assert "stuck: " in stack.memory("status", "--check", expect=1).stdout
        assert _health(stack, "indexer") == 1
        assert _health(stack, "workers", "embed", "--name", "embed-1") == 0
    _is_ok(stack)
    assert _health(stack, "indexer") == 0


def test_memories_that_no_worker_takes_are_stuck_and_the_embed_worker_is_named(stack: Stack) -> None:
    with _paused(stack, "embed-1"), stack.client() as client:
        client.enqueue("accepted while nobody embeds", namespace="embed")
        _becomes(stack, State.STUCK, "memories wait to be stored")
        assert "is an embed worker running?" in _verdict(stack).reason
        assert _health(stack, "workers", "embed", "--name", "embed-1") == 1
        assert _health(stack, "indexer") == 0
    _is_ok(stack)


def test_a_dead_letter_is_shown_with_everything_and_calls_for_a_look(stack: Stack) -> None:
    body = b'{"v":1,"uid":"nul","namespace":"dlq","content":"a\\u0000b"}'
    stack.redis("ingest").xadd("mem:in:fast", {"m": body})
    _becomes(stack, State.DEGRADED, "1 dead letters: see memory dlq list")
    stack.memory("status", "--check", expect=1)
    stack.memory("status")
    [listed] = stack.json("dlq", "list")
    shown = stack.json("dlq", "show", str(listed["id"]))
    assert shown == listed
    assert (shown["body"], shown["n_deliveries"]) == (body.decode(), 1)
    assert "NUL" in shown["reason"]
    printed = stack.memory("dlq", "show", str(listed["id"])).stdout
    assert body.decode() in printed
    stack.memory("dlq", "show", "999999", expect=4)
    with stack.client() as client, pytest.raises(NotFound, match="no dead letter with id 999999"):
        client.dead_letter(999999)
    stack.memory("dlq", "purge", "--all")
    _is_ok(stack)


def test_a_vector_damaged_in_the_database_raises_an_alarm_until_it_is_repaired(stack: Stack) -> None:
    with stack.client() as client:
        outcome = client.wait(client.enqueue("the spare key", namespace="audit"), timeout_s=30)
        assert outcome.id is not None
        url = _settings(stack).database_url
        with contextlib.closing(Database(url)) as database, database.write() as connection:
            row = update(memories).where(memories.c.id == outcome.id)
            connection.execute(row.values(embedding=b"\x00" * 1536))
        _becomes(stack, State.DEGRADED, "1 rows whose vector is damaged")
        assert "audit_alarm" in (stack.home / "logs" / "indexer.log").read_text()
        audit = stack.json("verify", expect=1)
        assert [finding["kind"] for finding in audit["findings"]] == ["vector_damaged"]
        repaired = stack.json("verify", "--repair")
        assert repaired["clean"]
        assert repaired["repair"]["done"] == ["sent 1 memories back to be embedded again"]
        assert Path(repaired["repair"]["kept"][0]).is_dir()
        assert stack.json("verify", "--repair")["repair"]["done"] == []
        _is_ok(stack)
        with contextlib.closing(Database(url)) as database, database.write() as connection:
            a_minute_ago = database_now(connection) - timedelta(minutes=1)
            waiting = update(memories).where(memories.c.status == "pending")
            connection.execute(waiting.values(stored_at=a_minute_ago))  # instead of waiting half of one
        wait_until(lambda: client.status().pending == 0, timeout_s=90, why="it is embedded again")
        [hit] = client.search(
            "spare key", namespace="audit", timeout_s=30, min_seq=client.status().applied_seq
        )
        assert hit.memory.id == outcome.id
        _is_ok(stack)


def test_where_no_server_answers_the_heartbeat_alone_decides(stack: Stack) -> None:
    nowhere = {"REDIS_URL": "redis://127.0.0.1:1", "MEMORY_DB_URL": "postgresql://x@127.0.0.1:1/x"}
    assert _health(stack, "indexer", **nowhere) == 0
    assert _health(stack, "workers", "embed", "--name", "nobody", **nowhere) == 1


def _verdict(stack: Stack) -> Verdict:
    with PipelineClient(_settings(stack)) as client:
        return client.status().verdict


def _becomes(stack: Stack, state: State, said: str) -> None:
    seen: list[Verdict] = []

    with PipelineClient(_settings(stack)) as client:

        def is_so() -> bool:
            seen[:] = [client.status().verdict]
            return seen[0].state is state and said in seen[0].reason

        try:
            wait_until(is_so, timeout_s=90, why=f"the verdict is {state}, saying {said!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen}") from error


def _is_ok(stack: Stack) -> None:
    _becomes(stack, State.OK, "nothing waits for long")


@contextlib.contextmanager
def _paused(stack: Stack, name: str) -> Iterator[None]:
    process = stack.child(name)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _health(stack: Stack, module: str, *arguments: str, **others: str) -> int:
    """The exit code of a process's healthcheck, in the environment of its deployment."""
    settings = _settings(stack)
    servers = {"REDIS_URL": str(settings.redis_url), "MEMORY_DB_URL": str(settings.db_url)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments, "--health"],
        env={**os.environ, **stack.environment, **servers, **others},
        timeout=30,
        check=False,
    ).returncode


def _settings(stack: Stack) -> Settings:
    found = running_stack(stack.home)
    assert found is not None
    limits = {"stuck_after_s": 3, "maintenance_tick_s": 0.5, "snapshot_every_s": 2, "audit_every_s": 1}
    return read_settings(home=stack.home, redis_url=found.redis_url, db_url=found.db_url, **limits)
