"""`memory keys create | list | revoke`: who may use the HTTP API, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from api_stub.commands.output import JsonOption, err, out, plain, print_json
from api_stub.home import connected_settings
from memory.api_keys import DEFAULT_REQUESTS_A_MINUTE, KeyScope, key_draft
from memory.database import Database
from memory.errors import InvalidMemory
from memory.store.api_keys import ApiKeys

app = typer.Typer(
    help="Keys of the HTTP API: each is bound to namespaces and to what it may do.", no_args_is_help=True
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for you to know it by.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "-s", help="read, write or admin; repeatable. read and write where absent."),
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Whose memories; repeatable.")
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", help="Everybody's memories.")] = False,
    requests_a_minute: Annotated[
        int, typer.Option(help="How many requests it may make.")
    ] = DEFAULT_REQUESTS_A_MINUTE,
    json: JsonOption = False,
) -> None:
    """Make a key and show it, this once.

    Example: memory keys create "Inês' assistant" --namespace ines --scope read --scope write
    """
    if bool(namespace) == everywhere:
        allowed = "named at least once, or --all-namespaces alone"
        raise InvalidMemory(field="--namespace", value=namespace, allowed=allowed)
    draft = key_draft(
        name=name,
        scopes=scope or [KeyScope.READ.value, KeyScope.WRITE.value],
        namespaces=None if everywhere else namespace,
        requests_a_minute=requests_a_minute,
    )
    with _keys() as keys:
        made, key = keys.create(draft)
    if json:
        print_json({**made.as_json(), "key": key})
        return
    out.print(key, markup=False)
    err.print("Keep it: it is shown this once, and only its hash is stored.")


@app.command("list")
def list_keys(json: JsonOption = False) -> None:
    """Show all keys, without their secrets.

    Example: memory keys list
    """
    with _keys() as keys:
        found = keys.list()
    if json:
        print_json([key.as_json() for key in found])
        return
    table = Table("id", "name", "scopes", "namespaces", "made", "revoked", box=None, header_style="bold")
    for key in found:
        table.add_row(
            key.id,
            plain(key.name),
            " ".join(sorted(key.scopes)),
            "all" if key.namespaces is None else plain(" ".join(key.namespaces)),
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        )
    out.print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Its id in `keys list`.")],
    json: JsonOption = False,
) -> None:
    """Let a key open nothing any more, from a few seconds on.

    Example: memory keys revoke 4f1d9a0c2b7e
    """
    with _keys() as keys:
        revoked = keys.revoke(key_id)
    if json:
        print_json(revoked.as_json())
    else:
        out.print(f"revoked {revoked.id} ({plain(revoked.name)})")


@contextmanager
def _keys() -> Iterator[ApiKeys]:
    database = Database(connected_settings().database_url)
    try:
        yield ApiKeys(database)
    finally:
        database.close()
