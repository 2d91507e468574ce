"""The whole pipeline on this machine: enqueue, ingest, freshness, search.

It runs a stack of its own, measures, and stops it. The floor is `SentenceTransformer.encode` with batches
of 32 over the same texts with all cores: what embedding alone costs. Each round measures both, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from api_stub.client import MemoryClient
from api_stub.home import connected_settings, running_stack
from api_stub.stack.children import ChildSpec, spawn, stop
from memory.embedding import DEFAULT_MODEL, locate
from memory.models import MemoryState


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memories", type=int, default=2000, help="of one ingest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=100, help="single enqueues, and searches")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    with _stack(sqlite=arguments.sqlite), MemoryClient(connected_settings()) as client:
        figures = _measure(client, arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>34}  {value}")


def _measure(client: MemoryClient, arguments: argparse.Namespace) -> dict[str, Any]:
    texts = _texts(arguments.memories)
    floor = SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
    rounds = [_round(client, floor, texts, n) for n in range(arguments.rounds)]
    waits, pushes = _freshness(client, arguments.singles)
    searches = [_timed(lambda t=t: client.search(t, namespace="0"))[0] for t in texts[: arguments.singles]]  # type: ignore[misc]
    medians = {key: round(statistics.median(r[key] for r in rounds), 2) for key in rounds[0]}
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}",
        "database": "sqlite" if arguments.sqlite else "postgres",
        "memories of one ingest": arguments.memories,
        **medians,
        "enqueue() p50 ms": _ms(pushes, 0.5),
        "enqueue to searchable p50 ms": _ms(waits, 0.5),
        "enqueue to searchable p99 ms": _ms(waits, 0.99),
        "search p50 ms": _ms(searches, 0.5),
        "search p99 ms": _ms(searches, 0.99),
        "equal": client.verify()["equal"],
    }


def _round(client: MemoryClient, floor: SentenceTransformer, texts: list[str], n: int) -> dict[str, float]:
    floor_s, _ = _timed(lambda: floor.encode(texts, batch_size=32, show_progress_bar=False))
    started = time.perf_counter()
    receipts = client.enqueue_many({"content": t, "namespace": str(n)} for t in texts)
    enqueued_s = time.perf_counter() - started
    outcomes = client.wait(receipts, timeout_s=600)
    total_s = time.perf_counter() - started
    assert {o.state for o in outcomes} == {MemoryState.SEARCHABLE}
    return {
        "bulk enqueue /s": len(texts) / enqueued_s,
        "ingest to searchable /s": len(texts) / total_s,
        "floor: embedding alone /s": len(texts) / floor_s,
        "ingest ÷ floor": floor_s / total_s,
    }


def _freshness(client: MemoryClient, n: int) -> tuple[list[float], list[float]]:
    waits, pushes = [], []
    for i in range(n):
        started = time.perf_counter()
        receipt = client.enqueue(f"A fresh thought, number {i}", namespace="fresh")
        pushes.append(time.perf_counter() - started)
        client.wait(receipt, timeout_s=60)
        waits.append(time.perf_counter() - started)
    return waits, pushes


def _texts(n: int) -> list[str]:
    lines = (files("ingest") / "samples" / "lighthouse.jsonl").read_text().splitlines()
    contents = [json.loads(line)["content"] for line in lines]
    return [f"{contents[i % len(contents)]} ({i // len(contents)})" for i in range(n)]


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _ms(seconds: list[float], quantile: float) -> float:
    return round(sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * quantile))] * 1000, 2)


@contextmanager
def _stack(*, sqlite: bool) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as name:
        home = Path(name)
        os.environ["MEMORY_HOME"] = name
        if sqlite:
            os.environ["MEMORY_DB_URL"] = f"sqlite:///{home}/memories.db"
        spec = ChildSpec(
            name="memory up",
            argv=(sys.executable, "-P", "-m", "api_stub.commands.app", "up"),
            log_path=home / "up.log",
            death_signal=signal.SIGTERM,
        )
        process = spawn(spec)
        try:
            while not ((found := running_stack(home)) and found.ready):
                assert process.poll() is None, spec.log_path.read_text()
                time.sleep(0.2)
            yield
        finally:
            stop(process, spec, timeout_s=30)


if __name__ == "__main__":
    main()
