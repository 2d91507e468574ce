"""`memory search`: what is found, and with --explain why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import JsonOption, NamespaceOption, err, out, plain, print_json
from memory.boosts import DEFAULT_HALF_LIFE_DAYS
from memory.messages import DEFAULT_NAMESPACE, decode_object
from memory.prompt_text import prompt_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.models import ScoreTerm, SearchHit


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    memory_type: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-k", help="At most so many, 1..1000.")] = 5,
    min_score: Annotated[float, typer.Option(help="None below it, -1..1.")] = -1.0,
    mode: Annotated[str, typer.Option(help="hybrid, vector or words.")] = "hybrid",
    source: Annotated[list[str] | None, typer.Option(help="Only from this source; repeatable.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this instant on, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this instant, ISO 8601.")] = None,
    read_times: Annotated[
        bool, typer.Option("--read-times", help='Read both from the query: "last week", "in May 2023".')
    ] = False,
    where: Annotated[
        str | None, typer.Option(help='More conditions, as JSON: {"metadata.author": "Ines"}.')
    ] = None,
    recency: Annotated[float, typer.Option(help="How much newness counts, 0..1.")] = 0.0,
    importance: Annotated[float, typer.Option(help="How much importance counts, 0..1.")] = 0.0,
    access: Annotated[float, typer.Option(help="How much it counts to be found lately, 0..1.")] = 0.0,
    half_life: Annotated[
        float, typer.Option(help="Days after which newness is halved.")
    ] = DEFAULT_HALF_LIFE_DAYS,
    diversity: Annotated[float, typer.Option(help="How unlike each other hits are to be, 0..1.")] = 0.0,
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Of those that say the same, only the best.")
    ] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let MEMORY_RERANKER order the best 50.")] = False,
    after: Annotated[str | None, typer.Option(help="The cursor of the page before.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Only as many as fit into a prompt of about this size.")
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Print a block of text for a prompt.")] = False,
    min_seq: Annotated[int | None, typer.Option(help="The write that must be seen.")] = None,
    expand: Annotated[int, typer.Option(help="Up to so many associated memories behind the hits.")] = 0,
    context: Annotated[
        int, typer.Option("--context", "-C", help="Show so many messages before and after each, 0..10.")
    ] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is made of.")] = False,
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
            source=source or None,
            since=since,
            until=until,
            read_times=read_times,
            where=None if where is None else decode_object(where, field="where"),
            recency=recency,
            importance=importance,
            access=access,
            half_life_days=half_life,
            diversity=diversity,
            distinct=distinct,
            rerank=rerank,
            after=after,
            max_tokens=max_tokens,
            expand=expand,
            context=context,
            explain=explain,
        )
    if json:
        print_json({"query": query, "results": [hit.as_json() for hit in hits]})
    elif prompt:
        sys.stdout.write(prompt_text(hits) + "\n")
    elif not hits:
        out.print(f"nothing found in namespace {namespace}", markup=False)
    else:
        out.print(_found(hits))
        if explain:
            out.print(_explained(hits))
        _tell_more(hits, limit=limit)


def _tell_more(hits: Sequence[SearchHit], *, limit: int) -> None:
    own = [hit for hit in hits if hit.relation is None]
    if hits[0].rerank_ms is not None:
        err.print(f"reranked in {hits[0].rerank_ms:.0f} ms", markup=False)
    if len(own) == limit and own[-1].cursor:
        err.print(f"the next page: --after {own[-1].cursor}", markup=False)


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
    """Return a row a hit and a column a term: what it adds to the score, or a boost leaves of it."""
    names, boosts = list(hits[0].terms), list(hits[0].boosts)
    table = _table("score", "id", *names, *boosts)
    for hit in hits:
        parts = [f"{t.value * t.weight:.3f} = {t.value:.2f} x {t.weight:g}" for t in hit.terms.values()]
        parts += [_factor(term) for term in hit.boosts.values()]
        table.add_row(f"{hit.score:.3f}", str(hit.memory.id), *parts)
    return table


def _factor(term: ScoreTerm) -> str:
    return f"x {1 - term.weight * (1 - term.value):.3f} = 1 - {term.weight:g} (1 - {term.value:.2f})"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
