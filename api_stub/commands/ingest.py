"""`memory ingest`: files of memories, with a progress bar for each of the three states."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, err, out, print_json
from api_stub.follow import Follower
from api_stub.home import connected_settings
from ingest.bulk import STDIN, BulkIngest, BulkReport
from memory.errors import InvalidMemory
from memory.validation import check_name

if TYPE_CHECKING:
    from memory.settings import Settings

_LOOK_EVERY_S = 0.3


def ingest(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="JSONL files; - reads standard input.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="For lines that name none (else: default).")
    ] = None,
    errors: Annotated[
        Path | None, typer.Option("--errors", help="Where rejected lines go (else: under MEMORY_HOME).")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Longest without any progress; 0: only push.")
    ] = 300,
    json: JsonOption = False,
) -> None:
    r"""Ingest JSONL files, one memory a line, and wait until all are searchable.

    A line is {"content", "memory_type"?, "source"?, "metadata"?, "uid"?, "created_at"?, "namespace"?}.
    The same file again adds nothing. Exits 1 if lines were rejected, or did not become searchable.

    Example: memory ingest chats.jsonl more.jsonl --namespace ines
    """
    _check_files(files)
    if namespace is not None:
        check_name("namespace", namespace)
    settings = connected_settings()
    with MemoryClient(settings) as client:
        result = run_ingest(
            client, settings, files, namespace=namespace, errors=errors, wait_s=wait_s, quiet=json
        )
    if json:
        print_json(result)
    else:
        _show(result)
    if result["rejected"] or result["dead"] or (result["unsettled"] and wait_s > 0):
        raise typer.Exit(Exit.PARTLY)


def run_ingest(
    client: MemoryClient,
    settings: Settings,
    files: list[str],
    *,
    namespace: str | None = None,
    errors: Path | None = None,
    wait_s: float = 300,
    quiet: bool = False,
) -> dict[str, Any]:
    """Ingest `files`, follow every memory until it is settled, and return the counts."""
    started = time.monotonic()
    follower = Follower(client)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    bulk = BulkIngest(
        client.producer,
        rejects=errors or settings.home / "rejected" / f"{stamp}.jsonl",
        max_content_bytes=settings.max_content_bytes,
        namespace=namespace,
    )
    with _Bars(follower, quiet=quiet) as bars:

        def on_progress(report: BulkReport) -> None:
            follower.add(report.receipts[follower.n_accepted :])
            bars.look()

        report = bulk.run(files, on_progress=on_progress)
        bars.finish(wait_s=wait_s)
    seconds = time.monotonic() - started
    return {
        "lines": report.n_lines,
        "rejected": report.n_rejected,
        "rejects_file": str(report.rejects_file) if report.rejects_file else None,
        "first_rejected": [f"{b.file}:{b.number}: {b.reason}" for b in report.first_rejected],
        "accepted": follower.n_accepted,
        "stored": follower.n_stored,
        "searchable": follower.n_searchable,
        "dead": follower.n_dead,
        "dead_reasons": sorted({o.reason or "" for o in follower.dead})[:5],
        "unsettled": follower.n_unsettled,
        "seconds": round(seconds, 3),
        "per_second": round(follower.n_searchable / seconds, 1),
    }


class _Bars:
    """Three bars on standard error, none where that is no terminal."""

    def __init__(self, follower: Follower, *, quiet: bool) -> None:
        self._follower = follower
        self._started = time.monotonic()
        self._last_look = 0.0
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
            console=err,
            disable=quiet or not err.is_terminal,
        )
        self._tasks = {
            name: self._progress.add_task(name, total=None, rate="")
            for name in ("accepted", "stored", "searchable")
        }

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> None:
        """Ask how far the memories have come, not too often, and show it."""
        if time.monotonic() - self._last_look >= _LOOK_EVERY_S:
            self._follower.look()
            self._show()

    def finish(self, *, wait_s: float) -> None:
        """Follow until all are settled, or nothing has moved for `wait_s`."""
        moved_at, last = time.monotonic(), -1
        while True:
            self._follower.look()
            self._show()
            if self._follower.done or time.monotonic() - moved_at > wait_s:
                return
            if self._follower.n_moved != last:
                moved_at, last = time.monotonic(), self._follower.n_moved
            time.sleep(0.05)

    def _show(self) -> None:
        self._last_look = time.monotonic()
        follower = self._follower
        seconds = max(1e-9, self._last_look - self._started)
        numbers = {
            "accepted": follower.n_accepted,
            "stored": follower.n_stored,
            "searchable": follower.n_searchable,
        }
        for name, n in numbers.items():
            self._progress.update(
                self._tasks[name], completed=n, total=follower.n_accepted, rate=f"{n / seconds:,.0f}/s"
            )


def _check_files(files: list[str]) -> None:
    for name in files:
        path = Path(name)
        if name != STDIN and not path.is_file():
            what = "a directory" if path.is_dir() else "not there"
            raise InvalidMemory(
                field="FILE", value=name, allowed=f"a readable JSONL file or -, this is {what}"
            )


def _show(result: dict[str, Any]) -> None:
    for line in result["first_rejected"]:
        err.print(f"rejected  {line}", markup=False)
    for reason in result["dead_reasons"]:
        err.print(f"dead      {reason}", markup=False)
    out.print(
        f"accepted {result['accepted']} · stored {result['stored']} · searchable {result['searchable']} · "
        f"dead letters {result['dead']} · rejected {result['rejected']} of {result['lines']} lines · "
        f"{result['seconds']:.1f} s, {result['per_second']:.0f}/s"
    )
    if result["rejects_file"]:
        out.print(f"rejected lines, with the reason of each: {result['rejects_file']}", markup=False)
    if result["unsettled"]:
        out.print(f"{result['unsettled']} accepted memories are not searchable yet: see `memory status`")
