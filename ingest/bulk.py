"""Bulk ingest: files of memories onto the stream, bad lines into a file, counts as it goes."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ingest.jsonl import BadLine, read_jsonl
from ingest.producer import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ingest.producer import Producer
    from memory.messages import RawMemory
    from memory.models import Receipt

STDIN = "-"


@dataclass(slots=True)
class BulkReport:
    """What came of a bulk ingest. Mutable: it grows while the files are read."""

    receipts: list[Receipt] = field(default_factory=list)
    n_lines: int = 0
    n_rejected: int = 0
    first_rejected: list[BadLine] = field(default_factory=list)
    rejects_file: Path | None = None

    @property
    def n_accepted(self) -> int:
        """How many lines Redis has accepted."""
        return len(self.receipts)


class BulkIngest:
    """Pushes JSONL files through a producer.

    Args:
        producer: where they go.
        rejects: file for the lines that are no memories, one JSON object each; made when needed.
        max_content_bytes: bound of one memory's content.
        patience_s: how long to wait each time the lane is full.
        namespace: for lines that name none.

    """

    def __init__(
        self,
        producer: Producer,
        *,
        rejects: Path,
        max_content_bytes: int,
        patience_s: float = 3600,
        namespace: str | None = None,
    ) -> None:
        self._producer = producer
        self._rejects = rejects
        self._max_content_bytes = max_content_bytes
        self._patience_s = patience_s
        self._namespace = namespace

    def run(self, paths: list[str], *, on_progress: Callable[[BulkReport], None]) -> BulkReport:
        """Push every line of every path (`-` is standard input); call `on_progress` after each chunk.

        Run again after a kill, lines that are stored already change nothing: their uids are the same.

        Raises:
            OSError: a file cannot be read.
            QueueFull, ServerAway: as the producer says; what was accepted stays accepted.

        """
        report = BulkReport()
        for path in paths:
            with _open(path) as stream:
                self._run_one(stream, path, report, on_progress)
        return report

    def _run_one(
        self, stream: IO[bytes], path: str, report: BulkReport, on_progress: Callable[[BulkReport], None]
    ) -> None:
        lines = read_jsonl(
            stream, name=path, max_content_bytes=self._max_content_bytes, namespace=self._namespace
        )
        for chunk in chunks(self._valid(lines, report)):
            self._producer.push_patiently(chunk, patience_s=self._patience_s)
            report.receipts.extend(raw.receipt for raw in chunk)
            on_progress(report)
        on_progress(report)

    def _valid(self, lines: Iterable[RawMemory | BadLine], report: BulkReport) -> Iterator[RawMemory]:
        for line in lines:
            report.n_lines += 1
            if isinstance(line, BadLine):
                self._reject(line, report)
            else:
                yield line

    def _reject(self, bad: BadLine, report: BulkReport) -> None:
        report.n_rejected += 1
        report.rejects_file = self._rejects
        if len(report.first_rejected) < 5:
            report.first_rejected.append(bad)
        self._rejects.parent.mkdir(parents=True, exist_ok=True)
        record = {"file": bad.file, "line": bad.number, "reason": bad.reason, "text": bad.text}
        with self._rejects.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    if path == STDIN:
        yield sys.stdin.buffer
    else:
        with Path(path).open("rb") as file:
            yield file
