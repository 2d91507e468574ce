"""How fast chat logs are read, in every format, on one core: messages alone, and made into memories.

With `--gigabytes N` also a ChatGPT export of that size, read in a process of its own: its peak memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.rig.chat_exports import PER_CONVERSATION, formats, write_chatgpt, write_export
from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import medians, timed
from benchmarks.rig.texts import sample_texts
from benchmarks.rig.waiting import say
from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree
from ingest.inputs import ImportOptions, opened


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--messages", type=positive, default=50_000, help="of each export")
    parser.add_argument("--gigabytes", type=float, default=0, help="of one large export besides")
    arguments = parser.parse_args()
    execute("readers", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    texts = sample_texts(arguments.messages)
    for name in formats():
        with tempfile.TemporaryDirectory(prefix="everkept-readers-") as folder:
            path = write_export(name, Path(folder), texts)
            rounds = [_rates(report, path, name, len(texts)) for _ in range(arguments.rounds)]
        report.figures[name] = medians(rounds)
        say(f"{name}: {report.figures[name]}")
    if arguments.gigabytes:
        report.figures["a ChatGPT export"] = _large(texts, n_bytes=int(arguments.gigabytes * 1e9))


def _rates(report: Report, path: Path, name: str, n: int) -> dict[str, float]:
    reading_s, n_messages = timed(lambda: _n_messages(path, name))
    making_s, (n_memories, n_flaws) = timed(lambda: _n_memories(path))
    if (n_messages, n_memories, n_flaws) != (n, n, 0):
        report.problems.append(
            f"{name}: {n_messages} messages, {n_memories} memories, {n_flaws} flaws of {n}"
        )
    return {"messages/s": n / reading_s, "memories/s": n / making_s}


def _n_messages(path: Path, name: str) -> int:
    with open_tree(path) as tree:
        [found] = detect(tree).found
        assert found.reader.name == name, found
        return sum(1 for _ in found.reader.read(tree, found.members, ReadOptions()))


def _n_memories(path: Path) -> tuple[int, int]:
    n_memories = n_flaws = 0
    with opened(str(path), ImportOptions(imported_at=datetime.now(UTC))) as (inputs, flaws):
        for source in inputs:
            for found in source.memories():
                n_flaws += isinstance(found, Flaw)
                n_memories += not isinstance(found, Flaw)
    return n_memories, n_flaws + len(flaws)


def _large(texts: Sequence[str], *, n_bytes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="everkept-readers-") as folder:
        path = Path(folder) / "conversations.json"
        write_chatgpt(path, _until(path, texts, n_bytes))
        say(f"{path.stat().st_size / 1e9:.2f} GB are written")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_read_large, args=(path, theirs))
        process.start()
        theirs.close()
        figures: dict[str, float] = ours.recv()
        process.join()
        return {"GB": path.stat().st_size / 1e9, **figures}


def _until(path: Path, texts: Sequence[str], n_bytes: int) -> Iterator[Sequence[str]]:
    start = 0
    while path.stat().st_size < n_bytes:
        yield [texts[(start + i) % len(texts)] for i in range(PER_CONVERSATION)]
        start += PER_CONVERSATION


def _read_large(path: Path, results: multiprocessing.connection.Connection) -> None:
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    started = time.monotonic()
    n_memories, n_flaws = _n_memories(path)
    seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    figures = {"memories": n_memories, "flaws": n_flaws, "memories/s": n_memories / seconds}
    results.send({**figures, "peak memory MB": peak_mb, "of it before reading MB": before_mb})


if __name__ == "__main__":
    main()
