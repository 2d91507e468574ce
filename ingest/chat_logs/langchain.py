"""LangChain's messages as it dumps them. They are read as data; no class that they name is ever loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch, from_iso
from ingest.chat_logs.json_lines import objects
from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place, Role
from ingest.chat_logs.nameless import NamelessConversations
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from ingest.chat_logs.trees import Member, Tree

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "function": "tool",
    "tool": "tool",
    "chat": "other",
}
_KINDS: dict[Role, Kind] = {"system": "system", "tool": "tool"}


def _recognise(sample: Sample) -> str | None:
    value = sample.value
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict) and "session_id" in first and "message" in first:
        return "rows of `session_id` and `message`"
    return "a list of messages, with `type` and `data` or `lc`, or pairs" if _parts(first) else None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        if isinstance(Sample(member=member).value, list):
            yield from _list(member)
        else:
            yield from _rows(member)


def _list(member: Member) -> Iterator[ChatMessage | Flaw]:
    """Read one conversation: the whole file."""
    conversation_id = ""
    n = 0
    try:
        for n, value in enumerate(values(member, "item"), start=1):
            conversation_id = conversation_id or NamelessConversations().name(value)
            place = Place(file=member.shown, at=f"message {n}")
            if isinstance(value, dict) and "session_id" in value:
                yield _row(value, place)
            else:
                yield _message(value, conversation_id, place)
    except UnreadableMember as error:
        yield Flaw(place=Place(file=member.shown, at=f"after message {n}"), reason=str(error))


def _rows(member: Member) -> Iterator[ChatMessage | Flaw]:
    for number, line in objects(member):
        yield line if isinstance(line, Flaw) else _row(line, Place(file=member.shown, at=f"line {number}"))


def _row(row: dict[str, Any], place: Place) -> ChatMessage | Flaw:
    session = name(row.get("session_id"))
    if session is None:
        return Flaw(place=place, reason="this row has no `session_id`")
    message = row.get("message")
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except (ValueError, RecursionError) as error:
            return Flaw(place=place, reason=f"its `message` is no JSON: {error}", text=message[:1000])
    return _message(message, session, place)


def _message(value: object, conversation_id: str, place: Place) -> ChatMessage | Flaw:
    parts = _parts(value)
    if parts is None:
        return Flaw(place=place, reason="this is no message of LangChain")
    kind_name, data = parts
    given = text(data.get("role")) if kind_name == "chat" else ""
    role = _ROLES.get(given or kind_name, "other")
    content = _text(data.get("content"))
    return ChatMessage(
        conversation_id=conversation_id,
        title=None,
        role=role,
        text=content,
        place=place,
        message_id=name(data.get("id")),
        author=name(data.get("name")) or (name(given) if role == "other" else None),
        created_at=_said_at(data),
        kind=_KINDS.get(role, "tool" if data.get("tool_calls") and not content.strip() else "shown"),
    )


def _parts(value: object) -> tuple[str, dict[str, Any]] | None:
    """Return the type, in lower case, and the fields of a message in any of its forms."""
    if isinstance(value, list):
        is_pair = len(value) == 2 and all(isinstance(part, str) for part in value)
        return (value[0].lower(), {"content": value[1]}) if is_pair and value[0].lower() in _ROLES else None
    found = mapping(value)
    if "lc" in found and isinstance(found.get("kwargs"), dict):
        path = [text(part) for part in sequence(found.get("id"))] or [""]
        return _type(path[-1]), found["kwargs"]
    if isinstance(found.get("type"), str) and isinstance(found.get("data"), dict):
        return _type(found["type"]), found["data"]
    return None


def _type(written: str) -> str:
    """Return `ai` for `ai`, `AIMessage` and `AIMessageChunk`."""
    return written.removesuffix("Chunk").removesuffix("Message").lower()


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = [
        block if isinstance(block, str) else text(mapping(block).get("text")) for block in sequence(content)
    ]
    return "".join(blocks)


def _said_at(data: dict[str, Any]) -> datetime | None:
    """Return the time that chat loaders note; the core writes none."""
    for event in sequence(mapping(data.get("additional_kwargs")).get("events")):
        written = mapping(event).get("message_time")
        if instant := from_epoch(written) or from_iso(written):
            return instant
    return None


LANGCHAIN = Reader(
    name="langchain",
    title="LangChain messages",
    looked_for="a list of messages, with `type` and `data` or `lc`, or pairs of role and text",
    recognise=_recognise,
    read=_read,
)
