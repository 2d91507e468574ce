"""The library on this machine: open from a snapshot, rebuild, add and search, with many memories.

The embedder is a null one (a random direction for each text, 384 numbers), so that what is measured is
all that is not the model. With a real one, add its pass over the text to each add and each search.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import faiss

from benchmarks.null_embedder import DIM, NullEmbedder
from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import in_ms, rounded, timed
from benchmarks.rig.waiting import Progress
from memory.memory_manager import MemoryManager

AT_ONCE = 10_000
RARE_EVERY = 1000
_K = 5


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=100_000)
    parser.add_argument("--singles", type=positive, default=100, help="single adds, and searches")
    parser.add_argument("--postgres", action="store_true", help="a Postgres of its own instead of SQLite")
    arguments = parser.parse_args()
    execute("library", arguments, lambda report: _run(report, arguments))


def _run(report: Report, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as name:
        home = Path(name)
        home.chmod(0o711)
        with _database(home, postgres=arguments.postgres) as url:
            _measure(report, url, home / "index", arguments)


@contextlib.contextmanager
def _database(home: Path, *, postgres: bool) -> Iterator[str]:
    if not postgres:
        yield f"sqlite:///{home / 'memories.db'}"
        return
    from tests.servers import running_postgres  # noqa: PLC0415 (only where it is asked for)

    with running_postgres(home) as server:
        yield server.new_database()


def _measure(report: Report, url: str, index: Path, arguments: argparse.Namespace) -> None:
    n = arguments.memories
    with MemoryManager(url, NullEmbedder(), index) as manager:
        filled_s, _ = timed(lambda: _fill(manager, n))
    opens = [
        timed(lambda: MemoryManager(url, NullEmbedder(), index).close())[0] for _ in range(arguments.rounds)
    ]
    shutil.rmtree(index)
    rebuilt_s, _ = timed(lambda: MemoryManager(url, NullEmbedder(), index).close())
    report.figures |= {
        "database": url.split(":", 1)[0],
        "memories": n,
        "add_memories, memories/s": rounded(n / filled_s),
        "open and close from a snapshot, median s": rounded(statistics.median(opens)),
        "open and close, index made from the rows, s": rounded(rebuilt_s),
    }
    with MemoryManager(url, NullEmbedder(), index) as manager:
        _measure_singles(report, manager, _flat(n), [f"question {i}" for i in range(arguments.singles)])
        equal = manager.verify().equal
    report.require(equal, "index and database differ")
    report.figures["index = database afterwards"] = equal


def _measure_singles(report: Report, manager: MemoryManager, bare: faiss.Index, texts: list[str]) -> None:
    """Each text in turn: a search, a filtered one, the floor of both, an add."""
    wide, rare, flat, adds, embedder = [], [], [], [], NullEmbedder()
    for text in texts:
        wide.append(timed(lambda t=text: manager.search_memories(t))[0])
        rare.append(timed(lambda t=text: manager.search_memories(t, "preference"))[0])
        flat.append(timed(lambda t=text: bare.search(embedder.encode([t]), _K))[0])
        adds.append(timed(lambda t=text: manager.add_memory(t, "episodic"))[0])
    report.figures |= {
        "add_memory": in_ms(adds),
        "search_memories": in_ms(wide),
        "search_memories, filtered to 0.1 %": in_ms(rare),
        "baseline: FAISS flat search alone": in_ms(flat),
    }


def _fill(manager: MemoryManager, n: int) -> None:
    progress = Progress("added", total=n)
    for start in range(0, n, AT_ONCE):
        manager.add_memories(_draft(i) for i in range(start, min(n, start + AT_ONCE)))
        progress.at(start)


def _draft(i: int) -> dict[str, str]:
    kind = "preference" if i % RARE_EVERY == 0 else "episodic"
    return {"content": f"note {i}", "memory_type": kind}


def _flat(n: int) -> faiss.Index:
    """Return a bare index of the same vectors."""
    index = faiss.IndexFlatIP(DIM)
    for start in range(0, n, AT_ONCE):
        drafts = [_draft(i) for i in range(start, min(n, start + AT_ONCE))]
        index.add(NullEmbedder().encode([draft["content"] for draft in drafts]))
    return index


if __name__ == "__main__":
    main()
