"""What accepted means, mode by mode, when the worst happens right after it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from api_stub.home import running_stack
from api_stub.pipeline_client import PipelineClient
from memory.database import database_now
from memory.models import Receipt
from memory.schema import memories
from memory.settings import read_settings
from tests.faults.null_stack import assert_kept, database_of, running_null_stack
from tests.pipeline.stack import Stack

pytestmark = pytest.mark.faults

N = 300


@contextlib.contextmanager
def client_of(stack: Stack, durability: str) -> Iterator[PipelineClient]:
    found = running_stack(stack.home)
    assert found is not None
    settings = read_settings(
        home=stack.home, redis_url=found.redis_url, db_url=found.db_url, durability=durability
    )
    with PipelineClient(settings) as client:
        yield client


def enqueue(client: PipelineClient, namespace: str) -> list[Receipt]:
    """Hand over many and one, each with a uid of its own."""
    many = client.enqueue_many({"content": f"memory {i}", "namespace": namespace} for i in range(N))
    return [*many, client.enqueue("the last one", namespace=namespace)]


def test_what_redis_accepted_outlives_its_kill(null_stack: Stack) -> None:
    _accept_and_kill(null_stack, "redis")


def test_what_redis_has_on_its_disk_outlives_its_kill(home: Path) -> None:
    with running_null_stack(home, MEMORY_DURABILITY="fsync") as stack:
        with stack.redis("ingest") as server:
            assert server.config_get("appendfsync") == {"appendfsync": "always"}
        _accept_and_kill(stack, "fsync")


def _accept_and_kill(stack: Stack, durability: str) -> None:
    namespace = f"accepted-{durability}"
    with client_of(stack, durability) as client:
        receipts = enqueue(client, namespace)
        stack.child("redis").kill()
    assert_kept(stack, receipts, namespace=namespace)


def test_what_the_database_accepted_outlives_the_loss_of_all_of_redis(null_stack: Stack) -> None:
    worker = null_stack.child("embed-1")
    worker.send_signal(signal.SIGSTOP)
    try:
        with client_of(null_stack, "db") as client:
            receipts = enqueue(client, "accepted-db")
            assert client.get_by_uid(receipts[0].uid, namespace="accepted-db").content == "memory 0"
        with null_stack.redis("ingest") as server:
            server.flushall()
        _pass_a_minute(null_stack)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert_kept(null_stack, receipts, namespace="accepted-db")


def test_a_content_changed_while_redis_is_lost_becomes_searchable(null_stack: Stack) -> None:
    with null_stack.client() as client:
        receipt = client.enqueue("before", namespace="changed")
        outcome = client.wait(receipt, timeout_s=60)
        assert outcome.id is not None
        worker = null_stack.child("embed-1")
        worker.send_signal(signal.SIGSTOP)
        try:
            client.update(outcome.id, content="after")
            with null_stack.redis("ingest") as server:
                server.flushall()
            _pass_a_minute(null_stack)
        finally:
            worker.send_signal(signal.SIGCONT)
    assert_kept(null_stack, [receipt], namespace="changed")


def _pass_a_minute(stack: Stack) -> None:
    """Let the memories that wait for their embedding have waited a minute longer."""
    with database_of(stack) as database, database.write() as connection:
        a_minute_ago = database_now(connection) - timedelta(minutes=1)
        waiting = update(memories).where(memories.c.status == "pending")
        connection.execute(waiting.values(stored_at=a_minute_ago))
