"""naive-cursor: the indexer follows the numbers of an identity column, and passes those that commit late.

A row's number is drawn when it is inserted, not when it is committed. While one writer still works on a bulk,
another commits a higher number; the cursor goes there, and the bulk's rows are never looked at again. What
the indexer has seen it writes down at once, so a kill costs nothing: only the cursor's own losses count.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.examination import Contents, Findings, examine
from benchmarks.chaos.ledger import Draft, Ledger
from benchmarks.chaos.naive.rows import Rows
from benchmarks.chaos.plan import Kind, Plan, Victim
from benchmarks.running_stack import Stack, StackFailed
from memory.heartbeat import Heartbeat
from memory.settings import Settings

_POLL_S = 0.01
_INDEX = "naive-index"


def index(settings: Settings) -> int:
    """Follow the rows until it is told to stop."""
    heartbeat = Heartbeat(settings.home, "indexer")
    rows = Rows(settings.database_url)
    path = settings.home / _INDEX
    last = max(_read(path), default=0)
    with path.open("a") as file:
        while True:
            heartbeat.touch()
            try:
                new = rows.after(last)
            except psycopg.Error:
                new = []
            if new:
                file.write("".join(f"{seq}\n" for seq in new))
                file.flush()
                os.fsync(file.fileno())
                last = new[-1]
            time.sleep(_POLL_S)


def _read(path: Path) -> Counter[int]:
    """Return what was written down. A last line that a kill cut off does not count, and is cut away."""
    if not path.exists():
        return Counter()
    whole, _, _ = path.read_text().rpartition("\n")
    path.write_text(f"{whole}\n" if whole else "")
    return Counter(int(line) for line in whole.splitlines())


class _Enqueuer:
    def __init__(self, settings: Settings) -> None:
        self._rows = Rows(settings.database_url)

    def single(self, draft: Draft) -> None:
        self._rows.insert([draft])

    def bulk(self, drafts: Sequence[Draft]) -> None:
        self._rows.insert(drafts)

    def close(self) -> None:
        self._rows.close()


class NaiveCursor:
    """The pipeline, as the harness sees it."""

    name = "naive-cursor"
    is_meant_to_lose = True
    kinds: frozenset[Kind] = frozenset({"kill", "pause"})
    module: tuple[str, ...] = ("benchmarks.chaos.naive", "up", "indexer")
    words = {"indexer": "chaos.naive indexer"}  # noqa: RUF012 (read only)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @staticmethod
    def victims(*, sqlite: bool) -> tuple[Victim, ...]:  # noqa: ARG004 (it has but one database)
        return ("indexer", "postgres")

    def environment(self, home: Path) -> dict[str, str]:  # noqa: ARG002 (it has no settings)
        return {}

    def enqueuer(self, stack: Stack) -> _Enqueuer:
        return _Enqueuer(stack.settings())

    def client(self, stack: Stack) -> PipelineClient | None:  # noqa: ARG002 (it can but enqueue)
        return None

    def wait_drained(self, stack: Stack, *, timeout_s: float) -> None:
        """Wait until the cursor has reached the last row."""
        rows = Rows(stack.settings().database_url)
        last = max((row.memory_id for row in rows.all()), default=0)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            lines = (stack.home / _INDEX).read_text().splitlines()
            if not last or (lines and int(lines[-1]) >= last):
                return
            time.sleep(0.2)
        raise StackFailed(f"the cursor has not come to {last} within {timeout_s:g} s")

    def examine(self, stack: Stack, ledger: Ledger) -> Findings:
        rows = Rows(stack.settings().database_url).all()
        in_index = Counter(int(line) for line in (stack.home / _INDEX).read_text().splitlines())
        return examine(ledger, Contents(rows=rows, in_index=in_index))
