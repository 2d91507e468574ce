"""`memory erase`: memories erased wherever they are, with a receipt that shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, out, print_json
from memory.selector import selector

if TYPE_CHECKING:
    from memory.erasure import ErasureReceipt, Remaining


def erase(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Whose memories.")] = None,
    source: Annotated[str | None, typer.Option(help="Those that came from there, exactly.")] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="A memory's number; repeatable.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Really erase; else only count.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for the indexer.")] = 600,
    json: JsonOption = False,
) -> None:
    """Erase memories wherever they are, and print a receipt. Counts only, unless --apply is given.

    Takes a namespace, a source, or both, or else numbers of memories. The receipt says what was found by
    looking again; exits 1 if anything is left, and the same command again does the rest.

    Example: memory erase --namespace ines --source chat --apply
    """
    selector(namespace=namespace, source=source, ids=ids)  # a bad one needs no stack to be refused
    with MemoryClient.from_env() as client:
        receipt = client.erase(
            namespace=namespace, source=source, ids=ids, dry_run=not apply, timeout_s=timeout_s
        )
    if json:
        print_json(receipt.as_json())
    else:
        _show(receipt)
    if apply and not receipt.complete:
        raise typer.Exit(Exit.PARTLY)


def _show(receipt: ErasureReceipt) -> None:
    if receipt.dry_run:
        out.print(f"would erase: {_by_place(receipt.remaining)}")
        return
    write = "" if receipt.seq is None else f" (write {receipt.seq})"
    out.print(
        f"erased {receipt.n_erased} memories{write}, {receipt.n_entries} on the streams, "
        f"{receipt.n_dead_letters} dead letters, {receipt.n_replies} results, "
        f"{receipt.n_quarantined} refused snapshots"
    )
    out.print(f"searched for {receipt.n_searches} of them by their own words")
    out.print(f"left: {_by_place(receipt.remaining)}")
    word = "complete" if receipt.complete else "NOT COMPLETE: run it again"
    out.print(f"{word}, {receipt.at:%Y-%m-%d %H:%M:%S} UTC")


def _by_place(remaining: Remaining) -> str:
    counts = asdict(remaining).items()
    return " · ".join(f"{place.replace('_', ' ')} {n}" for place, n in counts if n is not None)
