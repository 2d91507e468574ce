"""`memory add | get | update | delete`: single memories."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from api_stub.client import MemoryClient
from api_stub.commands.output import Exit, JsonOption, NamespaceOption, out, plain, print_json
from api_stub.pipeline_client import PipelineClient
from memory.errors import InvalidMemory
from memory.messages import DEFAULT_NAMESPACE, decode_object
from memory.models import Memory, MemoryState, MemoryType, Outcome

Identifier = Annotated[str, typer.Argument(metavar="ID", help="The memory's number, or with --uid its uid.")]
UidFlag = Annotated[bool, typer.Option("--uid", help="ID is a uid in the namespace.")]


def add(
    content: Annotated[str, typer.Argument(help="What to remember; - reads standard input.")],
    memory_type: Annotated[
        str, typer.Option("--type", "-t", help="One of: " + ", ".join(MemoryType))
    ] = "episodic",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "user",
    importance: Annotated[float | None, typer.Option(help="0..1; absent counts as 0.5.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    uid: Annotated[str | None, typer.Option(help="Idempotency key; the same one again adds nothing.")] = None,
    created_at: Annotated[str | None, typer.Option(help="ISO 8601; now where absent.")] = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until it is searchable; 0: do not.")
    ] = 30,
    json: JsonOption = False,
) -> None:
    """Remember one memory, and wait until it is searchable.

    Example: memory add "Inês is allergic to hazelnuts" --type semantic --importance 0.9
    """
    given = decode_object(metadata) if metadata is not None else {}
    if importance is not None:
        given["importance"] = importance
    with MemoryClient.from_env() as client:
        receipt = client.enqueue(
            sys.stdin.read() if content == "-" else content,
            memory_type=memory_type,
            source=source,
            metadata=given,
            uid=uid,
            namespace=namespace,
            created_at=created_at,
        )
        outcome = client.wait(receipt, timeout_s=wait_s)
    _show_outcome(outcome, json=json)
    _exit_as(outcome, wait_s=wait_s)


def get(
    identifier: Identifier,
    by_uid: UidFlag = False,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Show one stored memory.

    Example: memory get 17
    """
    with MemoryClient.from_env() as client:
        memory = _find(client, identifier, by_uid=by_uid, namespace=namespace)
    if json:
        print_json(memory.as_json())
        return
    for name, value in memory.as_json().items():
        out.print(f"{name:>14}  {value}", markup=False)


def context(
    identifier: Identifier,
    before: Annotated[int, typer.Option("--before", "-B", help="At most so many before it, 0..100.")] = 2,
    after: Annotated[int, typer.Option("--after", "-A", help="At most so many after it, 0..100.")] = 2,
    by_uid: UidFlag = False,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Show a memory with what was said around it.

    Example: memory context 17 --before 5
    """
    with MemoryClient.from_env() as client:
        middle = _find(client, identifier, by_uid=by_uid, namespace=namespace)
        found = client.context(middle.id, before=before, after=after)
    if json:
        print_json({"id": middle.id, "context": [memory.as_json() for memory in found]})
        return
    table = Table("", "id", "when", "who", "memory", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for memory in found:
        who = memory.metadata.get("author") or memory.metadata.get("role") or ""
        mark, when = "→" if memory.id == middle.id else "", f"{memory.created_at:%Y-%m-%d %H:%M}"
        table.add_row(mark, str(memory.id), when, plain(str(who)), plain(memory.content))
    out.print(table)


def update(
    identifier: Identifier,
    content: Annotated[str | None, typer.Option(help="Its new text; - reads standard input.")] = None,
    memory_type: Annotated[
        str | None, typer.Option("--type", "-t", help="One of: " + ", ".join(MemoryType))
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from.")] = None,
    importance: Annotated[float | None, typer.Option(help="0..1.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="A JSON object, merged into what is there; null removes a key.")
    ] = None,
    by_uid: UidFlag = False,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until it is searchable; 0: do not.")
    ] = 30,
    json: JsonOption = False,
) -> None:
    """Change what is given of one memory, leave the rest, and wait until it is searchable.

    Example: memory update 17 --content "Inês is allergic to all nuts" --importance 1
    """
    given = decode_object(metadata) if metadata is not None else {}
    if importance is not None:
        given["importance"] = importance
    with MemoryClient.from_env() as client:
        receipt = client.update(
            _find(client, identifier, by_uid=by_uid, namespace=namespace).id,
            content=sys.stdin.read() if content == "-" else content,
            memory_type=memory_type,
            source=source,
            metadata=given,
        )
        outcome = client.wait(receipt, timeout_s=wait_s)
    _show_outcome(outcome, json=json)
    _exit_as(outcome, wait_s=wait_s)


def delete(
    identifier: Identifier,
    by_uid: UidFlag = False,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Delete one memory: no search returns it from now on, and it never comes back.

    Example: memory delete 17
    """
    with MemoryClient.from_env() as client:
        memory_id = (
            _find(client, identifier, by_uid=by_uid, namespace=namespace).id
            if by_uid
            else _number(identifier)
        )
        seq = client.delete(memory_id)
    if json:
        print_json({"id": memory_id, "state": MemoryState.DELETED.value, "seq": seq})
    else:
        out.print(f"deleted memory {memory_id} (write {seq})")


def _find(client: PipelineClient, identifier: str, *, by_uid: bool, namespace: str) -> Memory:
    if by_uid:
        return client.get_by_uid(identifier, namespace=namespace)
    return client.get(_number(identifier))


def _number(identifier: str) -> int:
    if not identifier.isdecimal() or len(identifier) > 18:
        raise InvalidMemory(field="ID", value=identifier, allowed="a memory's number (or give --uid)")
    return int(identifier)


def _show_outcome(outcome: Outcome, *, json: bool) -> None:
    shown: dict[str, Any] = {
        "uid": outcome.receipt.uid,
        "namespace": outcome.receipt.namespace,
        "state": outcome.state.value,
        "id": outcome.id,
        "seq": outcome.seq,
        "reason": outcome.reason,
    }
    if json:
        print_json(shown)
        return
    where = f" as memory {outcome.id}" if outcome.id is not None else ""
    why = f": {outcome.reason}" if outcome.reason else ""
    out.print(f"{outcome.state.value}{where} (uid {outcome.receipt.uid}){why}", markup=False)


def _exit_as(outcome: Outcome, *, wait_s: float) -> None:
    if outcome.settled and outcome.state is not MemoryState.SEARCHABLE:
        raise typer.Exit(Exit.PARTLY)
    if not outcome.settled and wait_s > 0:
        raise typer.Exit(Exit.NOT_YET)
