"""Claude.ai's export: conversations as lists of messages; one that a browser saved may be a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_iso
from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place, Role
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_ROLES: dict[str, Role] = {"human": "user", "assistant": "assistant"}


def _recognise(sample: Sample) -> str | None:
    found = isinstance(sample.first.get("chat_messages"), list) and "uuid" in sample.first
    return "conversations with `chat_messages`" if found else None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        n = 0
        try:
            prefix = "item" if isinstance(Sample(member=member).value, list) else ""
            for n, conversation in enumerate(values(member, prefix), start=1):
                yield from _messages(mapping(conversation), Place(file=member.shown, at=f"conversation {n}"))
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown, at=f"after conversation {n}"), reason=str(error))


def _messages(conversation: dict[str, Any], place: Place) -> Iterator[ChatMessage | Flaw]:
    conversation_id = name(conversation.get("uuid"))
    if conversation_id is None or not isinstance(conversation.get("chat_messages"), list):
        missing = "`uuid`" if conversation_id is None else "`chat_messages`"
        yield Flaw(place=place, reason=f"this conversation has no {missing}")
        return
    title = name(conversation.get("name"))
    for n, value in enumerate(_thread(conversation), start=1):
        message = mapping(value)
        message_id = name(message.get("uuid"))
        here = Place(file=place.file, at=f"{place.at}, message {message_id or n}")
        if not message:
            yield Flaw(place=here, reason="this is no message")
            continue
        yield ChatMessage(
            conversation_id=conversation_id,
            title=title,
            role=_ROLES.get(text(message.get("sender")), "other"),
            text=_text(message),
            place=here,
            message_id=message_id,
            parent_id=name(message.get("parent_message_uuid")),
            created_at=from_iso(message.get("created_at")),
            kind=_kind(message),
            details=_details(message),
        )


def _thread(conversation: dict[str, Any]) -> list[Any]:
    """Return all messages; where a leaf is named, those that lead from the root to it."""
    messages = sequence(conversation.get("chat_messages"))
    by_id = {uuid: message for message in messages if (uuid := name(mapping(message).get("uuid")))}
    uuid = name(conversation.get("current_leaf_message_uuid"))
    if uuid not in by_id:
        return messages
    thread: dict[str, Any] = {}
    while uuid in by_id and uuid not in thread:  # what walks in a circle, or dangles, ends there
        thread[uuid] = by_id[uuid]
        uuid = name(mapping(by_id[uuid]).get("parent_message_uuid"))
    return list(reversed(thread.values()))


def _text(message: dict[str, Any]) -> str:
    """Return the text blocks; `text` may be empty, or hold a placeholder for what it cannot show."""
    blocks = [mapping(block) for block in sequence(message.get("content"))]
    parts = [_block(block) for block in blocks]
    return "\n\n".join(part for part in parts if part.strip()) or _flat(message, blocks)


def _block(block: dict[str, Any]) -> str:
    return text(block.get("text")) if block.get("type") in ("text", "voice_note") else ""


def _flat(message: dict[str, Any], blocks: list[dict[str, Any]]) -> str:
    # Where there are blocks, and none has a text, this one would only say that they cannot be shown.
    return "" if blocks else text(message.get("text"))


def _kind(message: dict[str, Any]) -> Kind:
    types = {text(mapping(block).get("type")) for block in sequence(message.get("content"))}
    return "tool" if types and types <= {"tool_use", "tool_result"} else "shown"


def _details(message: dict[str, Any]) -> dict[str, Any]:
    files = [*sequence(message.get("attachments")), *sequence(message.get("files"))]
    attachments = [found for file in files if (found := name(mapping(file).get("file_name")))]
    artifacts = list(dict.fromkeys(_artifacts(message)))
    return {
        **({"attachments": attachments} if attachments else {}),
        **({"artifacts": artifacts} if artifacts else {}),
    }


def _artifacts(message: dict[str, Any]) -> Iterator[str]:
    for value in sequence(message.get("content")):
        block = mapping(value)
        if block.get("type") == "tool_use" and block.get("name") == "artifacts":
            title = name(mapping(block.get("input")).get("title"))
            if title:
                yield title


CLAUDE = Reader(
    name="claude",
    title="Claude.ai export",
    looked_for="conversations with `chat_messages`",
    recognise=_recognise,
    read=_read,
)
