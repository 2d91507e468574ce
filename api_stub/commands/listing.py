"""`memory list`: what is stored, without a search."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import JsonOption, NamespaceOption, err, out, plain, print_json
from memory.messages import DEFAULT_NAMESPACE, decode_object


def list_memories(
    memory_type: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type; repeatable.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='Only what meets conditions, as JSON: {"metadata.author": "Ines"}.')
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-k", help="At most so many, 1..1000.")] = 20,
    after: Annotated[int | None, typer.Option(help="The last ID of the page before.")] = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Show stored memories, newest first.

    Example: memory list --where '{"importance": {"gte": 0.8}}'
    """
    with MemoryClient.from_env() as client:
        found = client.list_memories(
            namespace=namespace,
            memory_types=memory_type or None,
            where=None if where is None else decode_object(where, field="where"),
            after=after,
            limit=limit,
        )
    if json:
        print_json({"namespace": namespace, "memories": [memory.as_json() for memory in found]})
        return
    table = Table("id", "type", "when", "memory", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for memory in found:
        when = f"{memory.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(memory.id), memory.memory_type, when, plain(memory.content))
    out.print(table)
    if len(found) == limit:
        err.print(f"the next page: --after {found[-1].id}", markup=False)
