"""`memory ingest`: chat logs and files of memories, with a progress bar for each of the three states."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from api_stub.commands.import_bars import LOOK_EVERY_S, ImportBars
from api_stub.commands.output import Exit, JsonOption, err, out, print_json
from api_stub.home import connected_settings
from api_stub.pipeline_client import PipelineClient
from ingest.bulk import BulkIngest
from ingest.chat_logs.reader import ReadOptions
from ingest.inputs import STDIN, ImportOptions, opened, share_read
from ingest.journal import Journal
from ingest.tables import parse_columns
from memory.errors import InvalidMemory
from memory.validation import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.bulk import FileReport
    from ingest.chat_logs.messages import Kind
    from memory.settings import Settings


class LeftOut(StrEnum):
    """What is left out by default."""

    HIDDEN = "hidden"
    SYSTEM = "system"
    TOOL = "tool"


class DateOrder(StrEnum):
    """How a chat log writes its dates."""

    DMY = "dmy"
    MDY = "mdy"
    YMD = "ymd"


def ingest(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH…", help="Files, folders or zips; - reads JSONL from standard input."),
    ],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="For memories that name none (else: default).")
    ] = None,
    as_format: Annotated[
        str | None, typer.Option("--format", help="What the files are, instead of finding it out.")
    ] = None,
    include: Annotated[
        list[LeftOut] | None, typer.Option("--include", help="Import this too; may be given several times.")
    ] = None,
    date_order: Annotated[
        DateOrder | None, typer.Option("--date-order", help="Of dates such as 1/2/03 in a WhatsApp chat.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", help="Of times that name none, such as Europe/Lisbon.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=COLUMN",
            help="Of a CSV or Parquet file, such as content=text or metadata.topic=subject.",
        ),
    ] = None,
    own_name: Annotated[
        str | None, typer.Option("--own-name", help="Who you are among the authors of a chat.")
    ] = None,
    errors: Annotated[
        Path | None, typer.Option("--errors", help="Where goes what was rejected (else: under MEMORY_HOME).")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Longest without any progress; 0: only push.")
    ] = 300,
    guess_importance: Annotated[
        bool, typer.Option("--guess-importance", help="Of messages, by a simple formula (docs/import.md).")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is added to the files, until Ctrl-C.")
    ] = False,
    json: JsonOption = False,
) -> None:
    r"""Import chat logs and memories, and wait until all are searchable.

    Exports of chats (docs/import.md), or JSONL with a memory a line: {"content", "memory_type"?, "source"?,
    "metadata"?, "uid"?, "created_at"?, "namespace"?}, or CSV and Parquet with these as columns. The format
    is found out. The same again adds only what
    is new; killed, the same command goes on where it was. Exits 1 if something was rejected, or did not
    become searchable.

    Example: memory ingest chatgpt-export.zip chats.jsonl --namespace ines
    """
    if namespace is not None:
        check_name("namespace", namespace)
    settings = connected_settings()
    options = ImportOptions(
        imported_at=datetime.now(UTC),
        read=ReadOptions(
            date_order=date_order.value if date_order else None,
            time_zone=_zone(time_zone),
            own_name=own_name,
            columns=parse_columns(column or []),
            namespace=namespace,
            max_content_bytes=settings.max_content_bytes,
        ),
        include=_kinds(include or []),
        format=as_format,
        guesses_importance=guess_importance,
        is_growing=follow,
    )
    with PipelineClient(settings) as client:
        result = run_ingest(
            client, settings, paths, options=options, errors=errors, wait_s=wait_s, quiet=json
        )
    if json:
        print_json(result)
    else:
        _show(result)
    if result["rejected"] or result["dead"] or (result["unsettled"] and wait_s > 0):
        raise typer.Exit(Exit.PARTLY)


def run_ingest(
    client: PipelineClient,
    settings: Settings,
    paths: list[str],
    *,
    options: ImportOptions | None = None,
    errors: Path | None = None,
    wait_s: float = 300,
    quiet: bool = False,
) -> dict[str, Any]:
    """Import what stands at `paths`, follow every memory until it is settled, and return the counts."""
    started = time.monotonic()
    options = options or ImportOptions(imported_at=datetime.now(UTC))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    bulk = BulkIngest(
        client.producer,
        outcomes=client.outcomes,
        rejects=errors or settings.home / "rejected" / f"{stamp}.jsonl",
    )
    places = [path if path == STDIN else str(Path(path).resolve()) for path in paths]
    journal = Journal(settings.home / "imports", f"{settings.database_url} {places} {options.read}")
    if options.is_growing:
        bulk.start_over(journal)  # another file may have taken its place
    with ExitStack() as stack:
        # All are opened before the first is read: a name that is wrong must not be found out after an hour.
        found = [stack.enter_context(opened(path, options)) for path in paths]
        every = [source for inputs, _ in found for source in inputs]
        bars = stack.enter_context(ImportBars(bulk.follower, share=lambda: share_read(every), quiet=quiet))

        def on_progress() -> None:
            if bars.look():
                bulk.note_settled(journal)

        for inputs, flaws in found:
            for flaw in flaws:
                bulk.reject(flaw)
            bulk.run(inputs, journal, on_progress=on_progress)
        if options.is_growing:
            with suppress(KeyboardInterrupt):
                _follow(bulk, paths, options=options, journal=journal, on_progress=on_progress)
        bars.finish(wait_s=wait_s)
    bulk.note_settled(journal)
    if bulk.follower.done:
        journal.close()
    return _result(bulk, seconds=time.monotonic() - started)


def _follow(
    bulk: BulkIngest,
    paths: list[str],
    *,
    options: ImportOptions,
    journal: Journal,
    on_progress: Callable[[], None],
) -> None:
    """Read the files again whenever they have grown, for ever; what was read before is passed over."""
    sizes: dict[str, int] = {}
    while True:
        started = time.monotonic()
        for path in paths:
            size = Path(path).stat().st_size if Path(path).exists() else sizes.get(path, 0)
            if size < sizes.get(path, 0):
                bulk.start_over(journal)  # another file has taken its place
            if size != sizes.get(path):
                sizes[path] = size
                with opened(path, options) as (inputs, _):
                    bulk.run(inputs, journal, on_progress=on_progress)
        on_progress()
        time.sleep(max(LOOK_EVERY_S, 10 * (time.monotonic() - started)))  # a large one less often


def _result(bulk: BulkIngest, *, seconds: float) -> dict[str, Any]:
    report, follower = bulk.report, bulk.follower
    return {
        "files": [_file(file) for file in report.files.values()],
        "read": report.total("n_read"),
        "new": report.total("n_new"),
        "known": report.total("n_known"),
        "deleted_before": report.total("n_deleted"),
        "rejected": report.n_rejected,
        "rejects_file": str(report.rejects_file) if report.rejects_file else None,
        "first_rejected": [f"{flaw.place}: {flaw.reason}" for flaw in report.first_rejected],
        "accepted": follower.n_accepted,
        "stored": follower.n_stored,
        "searchable": follower.n_searchable,
        "dead": follower.n_dead,
        "dead_reasons": sorted({o.reason or "" for o in follower.dead})[:5],
        "unsettled": follower.n_unsettled,
        "seconds": round(seconds, 3),
        "per_second": round(follower.n_searchable / seconds, 1),
    }


def _file(file: FileReport) -> dict[str, Any]:
    progress = file.progress
    return {
        "name": file.name,
        "format": file.format,
        "new": progress.n_new,
        "known": progress.n_known,
        "deleted_before": progress.n_deleted,
        "rejected": progress.n_rejected,
        "oldest": progress.oldest,
        "newest": progress.newest,
    }


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidMemory(
            field="time_zone", value=name, allowed="a zone of the IANA database, such as Europe/Lisbon"
        ) from None


def _kinds(left_out: list[LeftOut]) -> tuple[Kind, ...]:
    return tuple(kind.value for kind in left_out)


def _show(result: dict[str, Any]) -> None:
    for line in result["first_rejected"]:
        err.print(f"rejected  {line}", markup=False)
    for reason in result["dead_reasons"]:
        err.print(f"dead      {reason}", markup=False)
    for file in result["files"]:
        out.print(_line(file), markup=False)
    out.print(
        f"accepted {result['accepted']} · stored {result['stored']} · searchable {result['searchable']} · "
        f"dead letters {result['dead']} · rejected {result['rejected']} · already there {result['known']} · "
        f"{result['seconds']:.1f} s, {result['per_second']:.0f}/s"
    )
    if result["rejects_file"]:
        out.print(f"what was rejected, with the reason of each: {result['rejects_file']}", markup=False)
    if result["unsettled"]:
        out.print(f"{result['unsettled']} accepted memories are not searchable yet: see `memory status`")


def _line(file: dict[str, Any]) -> str:
    dates = f", {file['oldest'][:10]} to {file['newest'][:10]}" if file["oldest"] else ""
    deleted = f", {file['deleted_before']} deleted before" if file["deleted_before"] else ""
    return (
        f"{file['name']} ({file['format']}): {file['new']} new, {file['known']} already there{deleted}, "
        f"{file['rejected']} rejected{dates}"
    )
