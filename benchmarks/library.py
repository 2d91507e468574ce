"""The library on this machine: open from a snapshot, rebuild, add and search, with many memories.

The embedder is a null one (a random direction for each text, 384 numbers), so that what is measured is
all that is not the model. With a real one, add its pass over the text to each add and each search.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memory.faiss_index import FAISSIndex
from memory.memory_manager import MemoryManager

DIM = 384
AT_ONCE = 10_000
RARE_EVERY = 1000


class NullEmbedder:
    """A direction of its own for each text. Returns float32 (n, 384), rows of length 1."""

    fingerprint = "null@1/384d/float32/unit"
    embedding_dim = DIM

    def encode(self, texts: Sequence[str]) -> Any:
        rows = np.empty((len(texts), DIM), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=100, help="single adds, and searches")
    parser.add_argument("--postgres", action="store_true", help="a Postgres of its own instead of SQLite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as name:
        home = Path(name)
        home.chmod(0o711)
        with _database(home, postgres=arguments.postgres) as url:
            for figure, value in _measure(url, home / "index", arguments).items():
                print(f"{figure:>44}  {value}")


@contextlib.contextmanager
def _database(home: Path, *, postgres: bool) -> Iterator[str]:
    if not postgres:
        yield f"sqlite:///{home / 'memories.db'}"
        return
    from tests.servers import running_postgres  # noqa: PLC0415 (only where it is asked for)

    with running_postgres(home) as server:
        yield server.new_database()


def _measure(url: str, index: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    n = arguments.memories
    with MemoryManager(url, NullEmbedder(), index) as manager:
        filled_s, _ = _timed(lambda: _fill(manager, n))
    opens = [
        _timed(lambda: MemoryManager(url, NullEmbedder(), index).close())[0] for _ in range(arguments.rounds)
    ]
    shutil.rmtree(index)
    rebuilt_s, _ = _timed(lambda: MemoryManager(url, NullEmbedder(), index).close())
    with MemoryManager(url, NullEmbedder(), index) as manager:
        texts = [f"question {i}" for i in range(arguments.singles)]
        wide = [_timed(lambda t=t: manager.search_memories(t))[0] for t in texts]  # type: ignore[misc]
        rare = [_timed(lambda t=t: manager.search_memories(t, "preference"))[0] for t in texts]  # type: ignore[misc]
        flat = [_timed(lambda t=t: _flat_search(manager, t))[0] for t in texts]  # type: ignore[misc]
        adds = [_timed(lambda t=t: manager.add_memory(t, "episodic"))[0] for t in texts]  # type: ignore[misc]
        equal = manager.verify().equal
    return {
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "database": url.split(":", 1)[0],
        "memories": n,
        "add_memories, memories/s": round(n / filled_s),
        "open and close from a snapshot, median s": round(statistics.median(opens), 2),
        "open and close, index made from the rows, s": round(rebuilt_s, 2),
        "add_memory p50 ms": _ms(adds),
        "search p50 ms": _ms(wide),
        "search filtered to 0.1 %, p50 ms": _ms(rare),
        "floor: FAISS flat search alone, p50 ms": _ms(flat),
        "index = database afterwards": equal,
    }


def _fill(manager: MemoryManager, n: int) -> None:
    for start in range(0, n, AT_ONCE):
        manager.add_memories(_draft(i) for i in range(start, min(n, start + AT_ONCE)))


def _draft(i: int) -> dict[str, str]:
    kind = "preference" if i % RARE_EVERY == 0 else "episodic"
    return {"content": f"note {i}", "memory_type": kind}


def _flat_search(manager: MemoryManager, text: str) -> None:
    index: FAISSIndex = manager._process.index._index.replica.content.index  # noqa: SLF001 (the floor)
    index.search(NullEmbedder().encode([text])[0], k=15, min_score=-1.0)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _ms(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 1)


if __name__ == "__main__":
    main()
