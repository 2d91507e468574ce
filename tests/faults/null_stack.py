"""The whole stack with a model that costs nothing, and what the fault tests do to it and ask of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import psutil
from sqlalchemy import func, select

from api_stub.home import running_stack
from memory.database import Database
from memory.errors import Recoverable, SearchUnavailable
from memory.failpoints import Failpoint
from memory.heartbeat import Heartbeat
from memory.models import MemoryState, Receipt
from memory.schema import memories
from memory.snapshot import SnapshotFolder
from memory.store.event_log import EventLog
from tests.pipeline.processes import alive
from tests.pipeline.stack import Stack, running_command
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-P", "-m", "benchmarks.null_stack")
FAST = {
    "MEMORY_SNAPSHOT_EVERY_S": "1",
    "MEMORY_TICK_S": "0.5",
    "MEMORY_MAINTENANCE_TICK_S": "0.5",
    "MEMORY_RECLAIM_AFTER_S": "1",
}
Action = Literal["kill", "raise", "hang"]
_MOST_HITS = 1000


def running_null_stack(home: Path, *arguments: str, **environment: str) -> AbstractContextManager[Stack]:
    """Run it until the end of the block, with failpoints; then nothing of it may be left."""
    _failpoints(home).mkdir(exist_ok=True)
    ours = {"MEMORY_FAILPOINTS": str(_failpoints(home)), "PYTHONPATH": str(ROOT)}
    return running_command(home, (*PROGRAM, "up", *arguments), {**ours, **FAST, **environment})


@contextlib.contextmanager
def beside(stack: Stack, *arguments: str, log: str, **environment: str) -> Iterator[psutil.Popen]:
    """Run one more process with the stack's servers and settings, logging to `logs/LOG.log`; then kill it."""
    found = running_stack(stack.home)
    assert found is not None
    servers = {"REDIS_URL": found.redis_url, "MEMORY_DB_URL": found.db_url, "PYTHONUNBUFFERED": "1"}
    settings = {**stack.environment, **servers, **environment}
    with (stack.home / "logs" / f"{log}.log").open("ab") as file:
        process = psutil.Popen(
            [*PROGRAM, *arguments], env={**os.environ, **settings}, cwd=stack.home, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)


def arm(stack: Stack, failpoint: Failpoint, action: Action) -> None:
    """Let the first process that comes to `failpoint` do this, once."""
    directory = _failpoints(stack.home)
    for taken in directory.glob(f"{failpoint}.*"):
        taken.unlink()
    unfinished = directory / f"tmp-{failpoint}"
    unfinished.write_text(action)
    unfinished.rename(directory / failpoint)


def wait_until_reached(stack: Stack, failpoint: Failpoint) -> int:
    """Wait until a process has come to an armed failpoint; return its pid."""
    directory = _failpoints(stack.home)
    wait_until(lambda: list(directory.glob(f"{failpoint}.*")), timeout_s=60, why=f"{failpoint} is reached")
    [taken] = directory.glob(f"{failpoint}.*")
    return int(taken.suffix[1:])


def wait_until_dead(process: psutil.Process, *, timeout_s: float = 30) -> None:
    """Wait until a process has ended, collected by its parent or not."""
    wait_until(lambda: not alive([process]), timeout_s=timeout_s, why=f"{process} has ended")


def wait_until_ready(stack: Stack, name: str) -> psutil.Process:
    """Wait until the process of this name has shown that it works; return it."""
    sign = Heartbeat(stack.home, name)

    def shows_itself() -> bool:
        age_s = sign.age_s()
        started_s = time.time() - stack.child(name).create_time()
        # The one before may have shown itself in the moment in which it died.
        return age_s is not None and age_s < started_s - 0.1

    wait_until(shows_itself, timeout_s=60, why=f"{name} works")
    return stack.child(name)


@contextlib.contextmanager
def nothing_restarts(stack: Stack) -> Iterator[None]:
    """Stop the supervisor, and nothing else, for the block: what dies in it stays dead until its end."""
    stack.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stack.process.send_signal(signal.SIGCONT)


class LogFrom:
    """What a process has logged since this was made."""

    def __init__(self, stack: Stack, name: str) -> None:
        path = "up.log" if name == "up" else f"logs/{name}.log"
        self._path = stack.home / path
        self._start = self._path.stat().st_size if self._path.exists() else 0

    def lines(self, word: str) -> list[str]:
        """Return its lines with this word."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            text = file.read().decode(errors="replace")
        return [line for line in text.splitlines() if word in line]


@contextlib.contextmanager
def database_of(stack: Stack) -> Iterator[Database]:
    """The stack's database, past every door."""
    found = running_stack(stack.home)
    assert found is not None
    database = Database(found.db_url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        yield database
    finally:
        database.close()


def n_rows(stack: Stack, namespace: str) -> int:
    """Count the rows of a namespace, tombstones too."""
    with database_of(stack) as database, database.read() as connection:
        statement = select(func.count()).select_from(memories).where(memories.c.namespace == namespace)
        return connection.scalar(statement) or 0


def n_on_streams(stack: Stack) -> int:
    """Count the entries on both lanes, delivered or not."""
    with stack.redis("ingest") as server:
        return sum(int(server.xlen(f"mem:in:{lane}")) for lane in ("fast", "bulk"))


def wait_until_idle(stack: Stack) -> None:
    """Wait until nothing is on the streams: all was stored and acknowledged, or given up."""
    wait_until(lambda: n_on_streams(stack) == 0, timeout_s=60, why="nothing waits on the streams")


def wait_until_saved(stack: Stack, directory: Path | None = None) -> None:
    """Wait until a snapshot of all that is stored is current and recorded."""
    folder = SnapshotFolder(directory or stack.home / "index")
    with database_of(stack) as database:
        log = EventLog(database)

        def is_saved() -> bool:
            progress = log.progress()
            return 0 < progress.head == progress.snapshot_seq and folder.current() == progress.snapshot

        wait_until(is_saved, timeout_s=60, why="a snapshot of all there is was saved")


def assert_kept(stack: Stack, receipts: Sequence[Receipt], *, namespace: str, n_unsure: int = 0) -> None:
    """All that was accepted, and nothing else, is stored once, searchable, found, and equal in the index.

    `n_unsure` more may be there or not: nobody said whether they were accepted.
    """
    with stack.client() as client:
        outcomes = client.wait(receipts, timeout_s=90)
        not_there = [o for o in outcomes if o.state is not MemoryState.SEARCHABLE]
        assert not_there == []
        wait_until_idle(stack)
        n_accepted = len({r.uid for r in receipts})
        assert len({o.id for o in outcomes}) == n_accepted
        n_stored = n_rows(stack, namespace)
        assert n_accepted <= n_stored <= n_accepted + n_unsure
        n_hits = min(n_stored, _MOST_HITS)
        wait_until(lambda: _finds(stack, namespace, n_hits), timeout_s=60, why=f"{n_hits} are found")
    assert_index_equal(stack)


def assert_index_equal(stack: Stack) -> None:
    """The indexer says that its index is equal to the database; waits for its answer."""
    wait_until(lambda: _is_equal(stack), timeout_s=60, why="the indexer answers")


def _finds(stack: Stack, namespace: str, n_hits: int) -> bool:
    with contextlib.suppress(Recoverable, SearchUnavailable), stack.client() as client:
        hits = client.search("anything", namespace=namespace, limit=_MOST_HITS, timeout_s=5)
        return len({hit.memory.uid for hit in hits}) == len(hits) == n_hits
    return False


def _is_equal(stack: Stack) -> bool:
    with contextlib.suppress(Recoverable, SearchUnavailable), stack.client() as client:
        audit = client.verify(timeout_s=10)
        assert audit["equal"], audit
        return True
    return False


def _failpoints(home: Path) -> Path:
    return home / "failpoints"
