"""F14, F21: what can never be stored, and what was never meant for us, costs nobody else anything."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.broker import QueueName
from memory.models import MemoryState
from tests.faults.null_stack import FAST, ROOT, assert_kept
from tests.faults.poisonous import KILLER, MENDED
from tests.pipeline.stack import Stack, running_command
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_MIB = 2**20
_POISONOUS = (sys.executable, "-P", "-m", "tests.faults.poisonous", "up")


def test_f14_a_memory_that_kills_its_worker_is_given_up_after_five_deliveries_and_stored_when_that_is_mended(
    home: Path,
) -> None:
    with running_poisonous_stack(home) as stack, stack.client() as client:
        before = [{"content": f"before {i}", "namespace": "f14"} for i in range(20)]
        after = [{"content": f"after {i}", "namespace": "f14"} for i in range(20)]
        receipts = client.enqueue_many([*before, {"content": KILLER, "namespace": "f14"}, *after])
        *stored, dead = sorted(client.wait(receipts, timeout_s=90), key=lambda o: o.state is MemoryState.DEAD)
        assert {o.state for o in stored} == {MemoryState.SEARCHABLE}
        assert dead.state is MemoryState.DEAD
        assert dead.reason == "delivered 5 times, and each time the worker died before it was stored"
        assert (home / "up.log").read_text().count("embed-1 died (signal 9)") == 5
        (home / MENDED).touch()
        assert stack.json("dlq", "retry", "--all") == {"retried": 1}
        assert_kept(stack, receipts, namespace="f14")
        assert client.dead_letters() == []


def test_f14_an_entry_of_many_megabytes_is_a_dead_letter_and_its_neighbours_are_stored(
    null_stack: Stack,
) -> None:
    huge = json.dumps({"v": 1, "uid": "huge", "namespace": "f14 huge", "content": "x" * 48 * _MIB})
    with null_stack.client() as client, null_stack.redis("ingest") as ingest:
        receipts = list(
            client.enqueue_many([{"content": f"{i}", "namespace": "f14 huge"} for i in range(50)])
        )
        ingest.xadd("mem:in:bulk", {"m": huge.encode()})
        ingest.xadd("mem:in:bulk", {"m": b"\xff" * 48 * _MIB})
        receipts += client.enqueue_many([{"content": f"+{i}", "namespace": "f14 huge"} for i in range(50)])
        assert_kept(null_stack, receipts, namespace="f14 huge")
        [one, other] = client.dead_letters()
        assert "content" in one.reason
        assert client.purge_dead_letters([one.id, other.id]) == 2


@pytest.mark.parametrize("queue", [QueueName.EMBED, QueueName.SEARCH])
def test_f21_a_giant_on_a_queue_is_refused_in_few_words_and_the_worker_lives(
    null_stack: Stack, queue: QueueName
) -> None:
    name = "embed-1" if queue is QueueName.EMBED else "indexer"
    pid = null_stack.child(name).pid
    log = null_stack.home / "logs" / f"{name}.log"
    n_said = log.stat().st_size
    with null_stack.redis("broker") as broker, null_stack.client() as client:
        for giant in giants(queue):
            broker.lpush(queue.value, giant)
        receipt = client.enqueue("after the giants", namespace=f"f21 {queue}")
        wait_until(lambda: broker.llen(queue.value) == 0, timeout_s=60, why="they are taken off the queue")
        assert_kept(null_stack, [receipt], namespace=f"f21 {queue}")
    assert null_stack.child(name).pid == pid
    assert log.stat().st_size - n_said < _MIB // 4


def giants(queue: QueueName) -> Iterator[bytes]:
    """Rubbish, an unknown task, and a known one with an argument that it does not take, of 16 MiB each."""
    yield b"x" * 16 * _MIB
    for task in ("os.system", "embed.drain", "index.apply", "search.query"):
        yield envelope(task, queue=queue, body=json.dumps([["x" * 16 * _MIB], {}, {}]))


def envelope(task: str, *, queue: QueueName, body: str) -> bytes:
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": task, "id": "giant", "lang": "py", "argsrepr": "", "kwargsrepr": ""},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queue.value},
            "delivery_tag": f"giant-{task}",
            "delivery_mode": 2,
        },
    }
    return json.dumps(message).encode()


@contextlib.contextmanager
def running_poisonous_stack(home: Path) -> Iterator[Stack]:
    with running_command(home, _POISONOUS, {**FAST, "PYTHONPATH": str(ROOT)}) as stack:
        yield stack
