"""`memory db current | upgrade`: the revision of the database's tables."""

from __future__ import annotations

from contextlib import closing
from typing import Literal

import typer

from api_stub.commands.output import Exit, JsonOption, out, print_json
from api_stub.home import database_settings
from memory.database import Database, known_revisions

app = typer.Typer(
    help="The database's tables: at which revision they are, and the way to the newest.", no_args_is_help=True
)

State = Literal["current", "behind", "empty", "missing", "newer"]

_SAID: dict[State, str] = {
    "current": "at revision {revision}, the newest",
    "behind": "at revision {revision}, the newest is {newest}: run `memory db upgrade`",
    "empty": "no tables yet, the newest revision is {newest}: run `memory db upgrade`",
    "missing": "there is no such file yet: `memory db upgrade` makes it, at revision {newest}",
    "newer": "at revision {revision}, of a newer version than this, whose newest is {newest}: run that one",
}


@app.command()
def current(json: JsonOption = False) -> None:
    """Show the database's revision, the newest one this version knows, and whether an upgrade is due.

    Changes nothing, and makes no file. Needs the database alone: that of MEMORY_DB_URL, else of the running
    stack. Exits 1 if the database is not at the newest revision.

    Example: memory db current --json
    """
    with closing(_database()) as database:
        exists = database.exists()
        revision = database.revision() if exists else None
    state = _state(revision, exists=exists)
    newest = known_revisions()[-1]
    if json:
        print_json(
            {
                "database": database.shown_url,
                "state": state,
                "revision": revision,
                "newest": newest,
                "upgrade_due": state in {"behind", "empty", "missing"},
            }
        )
    else:
        said = _SAID[state].format(revision=revision, newest=newest)
        out.print(f"{database.shown_url}: {said}", markup=False)
    if state != "current":
        raise typer.Exit(Exit.PARTLY)


@app.command()
def upgrade(json: JsonOption = False) -> None:
    """Bring the database to the newest revision, making its tables where there are none. Twice is harmless.

    Every process of a stack does the same when it starts.

    Example: MEMORY_DB_URL=sqlite:///memories.db memory db upgrade
    """
    with closing(_database()) as database:
        before = database.upgrade()
    newest = known_revisions()[-1]
    if json:
        print_json({"database": database.shown_url, "from": before, "to": newest})
    elif before == newest:
        out.print(f"{database.shown_url}: at revision {newest} already", markup=False)
    else:
        out.print(f"{database.shown_url}: upgraded from {before or 'nothing'} to {newest}", markup=False)


def _database() -> Database:
    return Database(database_settings().database_url)


def _state(revision: str | None, *, exists: bool) -> State:
    known = known_revisions()
    if not exists:
        return "missing"
    if revision is None:
        return "empty"
    if revision not in known:
        return "newer"
    return "current" if revision == known[-1] else "behind"
