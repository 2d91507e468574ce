"""`memory reembed`: another embedding model takes over."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from api_stub.commands.output import JsonOption, err, out, print_json
from api_stub.home import database_settings
from memory.database import Database
from memory.embedding import EmbeddingModel
from memory.errors import SettingsError
from memory.logs import log_as_a_library
from memory.reembedding import reembed as reembed_all
from memory.store.event_log import EventLog

if TYPE_CHECKING:
    from memory.embedder import Embedder
    from memory.settings import Settings

_INTERRUPTED = 130


def reembed(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Its name or directory (else: EMBEDDING_MODEL).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Embed everything again with another model, and go over to it at once.

    Until then the old vectors serve, and memories may be added, changed and deleted. Stopped by Ctrl-C, or
    killed, it goes on from there when it is called again. Needs the database alone: that of MEMORY_DB_URL,
    else of the running stack.

    Example: memory reembed --model all-mpnet-base-v2
    """
    log_as_a_library()
    settings = database_settings()
    if model:
        settings = settings.model_copy(update={"embedding_model": model})
    elif "embedding_model" not in settings.model_fields_set:
        # The default could be taken for the model of a stack that was started with another one.
        raise SettingsError("EMBEDDING_MODEL is not set: say which model is to serve, by it or by --model")
    with closing(Database(settings.database_url)) as database:
        if not database.exists():
            raise SettingsError(f"MEMORY_DB_URL = {database.shown_url}: there is no such file")
        database.upgrade()
        embedder = EmbeddingModel(
            settings.embedding_model,
            use_gpu=settings.use_gpu,
            n_threads=settings.embed_threads,
            batch_tokens=settings.embed_batch_tokens,
            engine=settings.embedding_engine,
            precision=settings.embedding_precision,
            cache=settings.model_cache,
        )
        result = _reembed(database, embedder, quiet=json)
    if json:
        print_json(result)
    elif result["switched"]:
        out.print(
            f"embedded {result['embedded']} memories again: from {result['from']} to {result['to']}. "
            f"Now set {_named(settings)}, and restart what still runs the old model",
            markup=False,
        )
    else:
        out.print(f"nothing to do: {result['to']} serves already", markup=False)


def _reembed(database: Database, embedder: Embedder, *, quiet: bool) -> dict[str, Any]:
    """Re-embed, with a bar on standard error where that is a terminal; return what was done."""
    before = EventLog(database).identity()
    old = before.model_fingerprint if before else None
    serves: list[bool] = []
    with Progress(
        TextColumn("embedded"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=quiet or not err.is_terminal,
    ) as progress:
        bar = progress.add_task("embedded", total=None)

        def on_progress(done: int, left: int) -> None:
            progress.update(bar, completed=done, total=done + left)

        try:
            n = reembed_all(
                database, embedder, on_progress=on_progress, on_switched=lambda: serves.append(True)
            )
        except KeyboardInterrupt:
            progress.stop()
            now = _what_now(embedder.fingerprint, old, serves=bool(serves))
            err.print(f"memory reembed: stopped; {now}", markup=False)
            raise typer.Exit(_INTERRUPTED) from None
    return {"embedded": n, "from": old, "to": embedder.fingerprint, "switched": old != embedder.fingerprint}


def _named(settings: Settings) -> str:
    """Return the settings that name the vectors: the model, and int8, which is a model of its own."""
    int8 = " EMBEDDING_PRECISION=int8" if settings.embedding_precision == "int8" else ""
    return f"EMBEDDING_MODEL={settings.embedding_model}{int8}"


def _what_now(new: str, old: str | None, *, serves: bool) -> str:
    if serves:
        return f"{new} serves already: set EMBEDDING_MODEL to it, and restart what still runs the old model"
    return f"{old} goes on serving. What was embedded is kept: the same command goes on from there"
