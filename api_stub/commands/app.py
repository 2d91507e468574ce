"""`memory`: the command line's entry, its commands, and the exit code of each kind of error."""

from __future__ import annotations

import sys

import typer

from api_stub.commands import associations, db, demo, dlq, keys, maintain, memories, reembed, up
from api_stub.commands.api import api
from api_stub.commands.erase import erase
from api_stub.commands.ingest import ingest
from api_stub.commands.listing import list_memories
from api_stub.commands.mcp import mcp
from api_stub.commands.output import Exit, err
from api_stub.commands.search import search
from memory.errors import (
    AccessDenied,
    ChildNeverReady,
    CleanupBraked,
    InvalidMemory,
    MemorySystemError,
    NoReranker,
    NoStack,
    NotFound,
    NotYetSearchable,
    Recoverable,
    SearchUnavailable,
    SettingsError,
)

app = typer.Typer(
    name="memory",
    help="A persistent memory for AI assistants. Start it with `memory up`, then use the other commands.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(up.up)
app.command()(memories.add)
app.command()(ingest)
app.command()(search)
app.command()(memories.get)
app.command("list")(list_memories)
app.command()(memories.context)
app.command()(memories.update)
app.command()(memories.delete)
app.command()(associations.associate)
app.command()(associations.dissociate)
app.command()(associations.related)
app.command()(maintain.cleanup)
app.command()(erase)
app.command()(maintain.status)
app.command()(maintain.verify)
app.command()(maintain.doctor)
app.command()(reembed.reembed)
app.command()(demo.demo)
app.command()(api)
app.command()(mcp)
app.add_typer(dlq.app, name="dlq")
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")

_EXIT_OF: tuple[tuple[type[MemorySystemError], Exit], ...] = (
    (InvalidMemory, Exit.USAGE),
    (NoStack, Exit.NO_STACK),
    (Recoverable, Exit.NO_STACK),
    (NotFound, Exit.NOT_FOUND),
    (NotYetSearchable, Exit.NOT_YET),
    (SearchUnavailable, Exit.NOT_YET),
    (SettingsError, Exit.REFUSED),
    (AccessDenied, Exit.REFUSED),
    (NoReranker, Exit.REFUSED),
    (CleanupBraked, Exit.REFUSED),
    (ChildNeverReady, Exit.REFUSED),
)


def main() -> None:
    """Run the command line; every error of ours is one line on standard error and its exit code."""
    try:
        app()
    except MemorySystemError as error:
        err.print(f"memory: {error}", markup=False)
        sys.exit(next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.PARTLY))


if __name__ == "__main__":
    main()
