"""F3, F5, F6, F19: a server dies, stands still or forgets; what was accepted is stored once all the same."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
import redis

from memory.errors import Recoverable, SearchUnavailable, ServerAway
from memory.models import MemoryState
from memory.stream import LANES, TAKEN, stream_key
from tests.faults.load import Load, load
from tests.faults.null_stack import (
    LogFrom,
    assert_kept,
    n_rows,
    nothing_restarts,
    wait_until_dead,
)
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_NOT_A_NUDGE = {stream_key(lane).encode() for lane in LANES} | {TAKEN.encode()}


def test_f03_redis_killed_again_and_again_under_load_loses_nothing_that_was_accepted(
    null_stack: Stack,
) -> None:
    chance = random.Random(3)
    with load(null_stack, namespace="f03 killed") as running:
        for _ in range(5):
            wait_until_accepted(running, chance.randint(50, 300))
            server = null_stack.child("redis")
            server.kill()
            wait_until_dead(server)
        wait_until_accepted(running, 100)
    assert_kept(null_stack, running.accepted, namespace="f03 killed")


def test_f03_while_redis_is_away_producers_are_told_and_all_goes_on_by_itself_when_it_is_back(
    null_stack: Stack,
) -> None:
    with load(null_stack, namespace="f03 away") as running:
        wait_until_accepted(running, 100)
        embed, indexer = LogFrom(null_stack, "embed-1"), LogFrom(null_stack, "indexer")
        with nothing_restarts(null_stack), null_stack.client() as client:
            null_stack.child("redis").kill()
            with pytest.raises(ServerAway, match="Redis"), took_less_than(20):
                client.enqueue("x", namespace="nobody")
            wait_until(lambda: embed.lines("broker_not_reached"), timeout_s=60, why="the worker knows")
            wait_until(lambda: indexer.lines("broker_not_reached"), timeout_s=60, why="the indexer knows")
        wait_until_accepted(running, 100)
    assert_kept(null_stack, running.accepted, namespace="f03 away")


def test_f03_a_redis_that_stands_still_is_away_too_and_its_silence_has_an_end(null_stack: Stack) -> None:
    with load(null_stack, namespace="f03 frozen") as running, null_stack.client() as client:
        wait_until_accepted(running, 100)
        with (
            frozen(null_stack.child("redis")),
            pytest.raises(ServerAway, match="Redis"),
            took_less_than(20),
        ):
            client.enqueue("x", namespace="nobody")
        wait_until_accepted(running, 100)
    assert_kept(null_stack, running.accepted, namespace="f03 frozen")


def test_f05_whatever_redis_forgets_but_the_streams_costs_no_memory(null_stack: Stack) -> None:
    ingest, broker, results = (null_stack.redis(purpose) for purpose in ("ingest", "broker", "results"))
    with load(null_stack, namespace="f05") as running, ingest, broker, results:
        for _ in range(10):
            wait_until_accepted(running, 50)
            broker.flushdb()
            results.flushdb()
            for key in set(ingest.keys()) - _NOT_A_NUDGE:
                ingest.delete(key)
    assert_kept(null_stack, running.accepted, namespace="f05")


@pytest.mark.parametrize(
    ("number", "n"), [(signal.SIGQUIT, 5), (signal.SIGKILL, 2)], ids=["stopped at once", "killed"]
)
def test_f06_postgres_gone_again_and_again_in_the_middle_of_batches_loses_and_doubles_nothing(
    null_stack: Stack, number: signal.Signals, n: int
) -> None:
    namespace = f"f06 {number}"
    chance = random.Random(number)
    with load(null_stack, namespace=namespace) as running:
        for _ in range(n):
            wait_until(lambda: stores_more(null_stack, namespace, chance), timeout_s=60, why="it stores")
            server = null_stack.child("postgres")
            server.send_signal(number)
            wait_until_dead(server)
        wait_until(lambda: stores_more(null_stack, namespace, chance), timeout_s=60, why="it stores again")
    assert_kept(null_stack, running.accepted, namespace=namespace)


def test_f19_a_search_whose_answer_cannot_travel_fails_clearly_while_memories_are_stored_on(
    null_stack: Stack,
) -> None:
    with null_stack.client() as client:
        client.wait(client.enqueue("one", namespace="f19"), timeout_s=60)
        with no_replies(null_stack):
            with pytest.raises(ServerAway, match="No permissions"), took_less_than(10):
                client.search("one", namespace="f19", timeout_s=5)
            pids = {null_stack.child(name).pid for name in ("embed-1", "indexer")}
            outcome = client.wait(client.enqueue("two", namespace="f19"), timeout_s=60)
            assert outcome.state is MemoryState.SEARCHABLE
        wait_until(lambda: n_found(null_stack, "f19") == 2, timeout_s=60, why="searches are answered again")
        assert pids == {null_stack.child(name).pid for name in ("embed-1", "indexer")}


@contextlib.contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Let a process stand still for the block, which may kill it."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def took_less_than(most_s: float) -> Iterator[None]:
    """The block ends, well or not, within this time."""
    start = time.monotonic()
    try:
        yield
    finally:
        assert time.monotonic() - start < most_s


@contextlib.contextmanager
def no_replies(stack: Stack) -> Iterator[None]:
    """Let Redis refuse whoever gives or takes an answer, and nothing else."""
    others = ("mem:in:*", "mem:nudge:*", "embed*", "index*", "search*", "maintenance*")
    with stack.redis("results") as server:
        server.execute_command("ACL", "SETUSER", "default", "resetkeys", *(f"~{key}" for key in others))
        try:
            yield
        finally:
            server.execute_command("ACL", "SETUSER", "default", "allkeys")


def wait_until_accepted(running: Load, n: int) -> None:
    """Wait until so many more memories were accepted."""
    enough = len(running.accepted) + n
    wait_until(
        lambda: running.is_alive() and len(running.accepted) >= enough, timeout_s=90, why=f"{n} are accepted"
    )


def stores_more(stack: Stack, namespace: str, chance: random.Random) -> bool:
    """Whether rows are added, a few hundred at most from now; not while the database is away."""
    with contextlib.suppress(Recoverable):
        enough = n_rows(stack, namespace) + chance.randint(1, 300)
        wait_until(lambda: n_rows(stack, namespace) >= enough, timeout_s=60, why="it stores")
        return True
    return False


def n_found(stack: Stack, namespace: str) -> int:
    with contextlib.suppress(Recoverable, SearchUnavailable, redis.RedisError), stack.client() as client:
        return len(client.search("one", namespace=namespace, timeout_s=3))
    return -1
