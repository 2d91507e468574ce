"""`memory dlq list | show | retry | purge`: dead letters."""

from __future__ import annotations

from typing import Annotated

import typer

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, out, print_json

app = typer.Typer(
    help="Dead letters: memories that can never be stored, with the reason.", no_args_is_help=True
)

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID…]", help="Their numbers in `dlq list`.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    json: JsonOption = False,
) -> None:
    """Show dead letters, oldest first.

    Example: memory dlq list --limit 20
    """
    with MemoryClient.from_env() as client:
        letters = client.dead_letters(limit=limit)
    if json:
        print_json([letter.as_json() for letter in letters])
        return
    if not letters:
        out.print("no dead letters")
    for letter in letters:
        key = f"{letter.namespace}/{letter.uid}" if letter.uid else letter.entry_id
        out.print(f"{letter.id:>6}  {letter.at:%Y-%m-%d %H:%M:%S}  {key}  {letter.reason}", markup=False)


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in `dlq list`.")],
    json: JsonOption = False,
) -> None:
    """Show one dead letter with everything that is known of it, its bytes included.

    Exits 4 if there is none.

    Example: memory dlq show 4
    """
    with MemoryClient.from_env() as client:
        letter = client.dead_letter(letter_id).as_json()
    if json:
        print_json(letter)
        return
    for name, value in letter.items():
        out.print(f"{name.replace('_', ' '):<14}{'-' if value is None else value}", markup=False)


@app.command()
def retry(ids: Ids = None, every: All = False, json: JsonOption = False) -> None:
    """Put dead letters back on the stream, to be tried again.

    Example: memory dlq retry 4 7
    """
    with MemoryClient.from_env() as client:
        n = client.retry_dead_letters(_chosen(ids, every=every))
    _report("retried", n, ids, json=json)


@app.command()
def purge(ids: Ids = None, every: All = False, json: JsonOption = False) -> None:
    """Forget dead letters for good.

    Example: memory dlq purge --all
    """
    with MemoryClient.from_env() as client:
        n = client.purge_dead_letters(_chosen(ids, every=every))
    _report("purged", n, ids, json=json)


def _chosen(ids: list[int] | None, *, every: bool) -> list[int] | None:
    if bool(ids) == every:
        message = "give the numbers of dead letters, or --all"
        raise typer.BadParameter(message)
    return None if every else ids


def _report(verb: str, n: int, ids: list[int] | None, *, json: bool) -> None:
    if json:
        print_json({verb: n})
    else:
        out.print(f"{verb} {n} dead letters")
    if ids and n < len(set(ids)):
        raise typer.Exit(Exit.NOT_FOUND)
