"""`memory search`: what is found, and with --explain why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import JsonOption, NamespaceOption, out, plain, print_json
from memory.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.models import SearchHit


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    memory_type: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-k", help="At most so many, 1..1000.")] = 5,
    min_score: Annotated[float, typer.Option(help="None below it, -1..1.")] = -1.0,
    mode: Annotated[str, typer.Option(help="hybrid, vector or words.")] = "hybrid",
    min_seq: Annotated[int | None, typer.Option(help="The write that must be seen.")] = None,
    context: Annotated[
        int, typer.Option("--context", "-C", help="Show so many messages before and after each, 0..10.")
    ] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is the sum of.")] = False,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Search by meaning, words and context, best first.

    Example: memory search "what can she not eat?" --type semantic --limit 3
    """
    with MemoryClient.from_env() as client:
        hits = client.search(
            query,
            min_seq=min_seq,
            namespace=namespace,
            memory_types=memory_type or None,
            limit=limit,
            min_score=min_score,
            mode=mode,
            context=context,
            explain=explain,
        )
    if json:
        print_json({"query": query, "results": [hit.as_json() for hit in hits]})
    elif not hits:
        out.print(f"nothing found in namespace {namespace}", markup=False)
    else:
        out.print(_found(hits))
        if explain:
            out.print(_explained(hits))


def _found(hits: Sequence[SearchHit]) -> Table:
    table = _table("score", "id", "type", "when", "memory")
    for hit in hits:
        for memory in (*hit.before, hit.memory, *hit.after):
            score = f"{hit.score:.3f}" if memory is hit.memory else ""
            when = f"{memory.created_at:%Y-%m-%d %H:%M}"
            table.add_row(score, str(memory.id), memory.memory_type, when, plain(memory.content))
        table.add_section()
    return table


def _explained(hits: Sequence[SearchHit]) -> Table:
    """Return a row a hit and a column a term: what it adds to the score, and its value by its weight."""
    names = list(hits[0].terms)
    table = _table("score", "id", *names)
    for hit in hits:
        parts = (
            f"{term.value * term.weight:.3f} = {term.value:.2f} x {term.weight:g}"
            for term in hit.terms.values()
        )
        table.add_row(f"{hit.score:.3f}", str(hit.memory.id), *parts)
    return table


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
