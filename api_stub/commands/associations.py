"""`memory associate | dissociate | related`: how memories hang together."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import JsonOption, out, plain, print_json
from memory.messages import decode_object

FromArgument = Annotated[int, typer.Argument(metavar="FROM", help="The number of a memory.")]
ToArgument = Annotated[int, typer.Argument(metavar="TO", help="The number of another one.")]


def associate(
    memory_id: FromArgument,
    related_id: ToArgument,
    relationship_type: Annotated[str, typer.Argument(metavar="TYPE", help="Any name, such as caused_by.")],
    strength: Annotated[float, typer.Option(help="0..1.")] = 1.0,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    json: JsonOption = False,
) -> None:
    """Link one memory to another of its namespace; an equal link is updated.

    Example: memory associate 17 18 caused_by --strength 0.8
    """
    with MemoryClient.from_env() as client:
        made = client.associate(
            memory_id,
            related_id,
            relationship_type,
            strength=strength,
            metadata=None if metadata is None else decode_object(metadata),
        )
    if json:
        print_json(made.as_json())
    else:
        out.print(f"{memory_id} is linked to {related_id}: {made.relationship_type}", markup=False)


def dissociate(
    memory_id: FromArgument,
    related_id: ToArgument,
    relationship_type: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Only the link of this type.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove the links from one memory to another.

    Example: memory dissociate 17 18
    """
    with MemoryClient.from_env() as client:
        n_removed = client.dissociate(memory_id, related_id, relationship_type)
    if json:
        print_json({"removed": n_removed})
    else:
        out.print(f"removed {n_removed}")


def related(
    memory_id: Annotated[int, typer.Argument(metavar="ID", help="The number of a memory.")],
    relationship_type: Annotated[str | None, typer.Option("--type", help="Only along this type.")] = None,
    direction: Annotated[str, typer.Option(help="outgoing, incoming or both.")] = "both",
    min_strength: Annotated[float, typer.Option(help="Nothing weaker, 0..1.")] = 0.0,
    depth: Annotated[int, typer.Option(help="Steps at most, 1..10.")] = 1,
    json: JsonOption = False,
) -> None:
    """Show what is related to a memory, the strongest first.

    Example: memory related 17 --depth 2
    """
    with MemoryClient.from_env() as client:
        found = client.related(
            memory_id,
            relationship_type=relationship_type,
            direction=direction,
            min_strength=min_strength,
            depth=depth,
        )
    if json:
        print_json({"id": memory_id, "related": [one.as_json() for one in found]})
        return
    table = Table("strength", "id", "type", "way", "steps", "memory", box=None, header_style="bold")
    for memory, relation in found:
        way = "→" if relation.direction == "outgoing" else "←"
        table.add_row(
            f"{relation.strength:.2f}",
            str(memory.id),
            plain(relation.type),
            way,
            str(relation.depth),
            plain(memory.content),
        )
    out.print(table)
