"""ChatGPT's export: each conversation is a tree of messages, of which one thread is what the person sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch
from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place, Role
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}
_NEVER_SHOWN = {"thoughts", "reasoning_recap", "sonic_webpage", "system_error", "tether_browsing_display"}
# Marks of citations: between private-use characters, or in the brackets that came before these.
_CITATIONS = re.compile(" ?\ue200[^\ue200\ue201]*\ue201| ?【[^【】†]*†[^【】]*】")
_LEFT_OVER = re.compile("[\ue200-\ue2ff]")


def _recognise(sample: Sample) -> str | None:
    first = sample.first
    if isinstance(sample.value, dict) and sequence(first.get("conversations")):
        first = mapping(sequence(first["conversations"])[0])
    found = isinstance(first.get("mapping"), dict)
    return "conversations with a `mapping` of messages" if found else None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        n = 0
        try:
            for n, conversation in enumerate(values(member, "item", "conversations.item"), start=1):
                yield from _thread(mapping(conversation), Place(file=member.shown, at=f"conversation {n}"))
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown, at=f"after conversation {n}"), reason=str(error))


def _thread(conversation: dict[str, Any], place: Place) -> Iterator[ChatMessage | Flaw]:
    nodes = mapping(conversation.get("mapping"))
    conversation_id = name(conversation.get("conversation_id")) or name(conversation.get("id"))
    if conversation_id is None or not isinstance(conversation.get("mapping"), dict):
        missing = "id" if conversation_id is None else "`mapping` of messages"
        yield Flaw(place=place, reason=f"this conversation has no {missing}")
        return
    leaf = _leaf(conversation, nodes)
    parent_id = None
    for node_id in _path(nodes, leaf):
        message = mapping(mapping(nodes[node_id]).get("message"))
        if not message:
            continue  # the root
        message_id = name(message.get("id")) or node_id
        yield ChatMessage(
            conversation_id=conversation_id,
            title=name(conversation.get("title")),
            role=_role(message),
            text=_text(mapping(message.get("content"))),
            place=Place(file=place.file, at=f"{place.at}, message {message_id}"),
            message_id=message_id,
            parent_id=parent_id,
            author=name(mapping(message.get("author")).get("name")),
            created_at=from_epoch(message.get("create_time")),
            kind=_kind(message),
            details=_details(message),
        )
        parent_id = message_id


def _leaf(conversation: dict[str, Any], nodes: dict[str, Any]) -> str | None:
    """Return the end of the thread that is shown; where it is not named, the newest end of any."""
    current = conversation.get("current_node")
    if isinstance(current, str) and current in nodes:
        return current
    leaves = [node_id for node_id, node in nodes.items() if not sequence(mapping(node).get("children"))]
    return max(leaves, key=lambda node_id: _created(nodes[node_id]), default=None)


def _created(node: object) -> float:
    created = mapping(mapping(node).get("message")).get("create_time")
    instant = from_epoch(created)
    return instant.timestamp() if instant else 0.0


def _path(nodes: dict[str, Any], leaf: str | None) -> list[str]:
    """Return the nodes from root to leaf. A parent that is not there, or was passed, ends the walk."""
    path: dict[str, None] = {}
    node_id = leaf
    while isinstance(node_id, str) and node_id in nodes and node_id not in path:
        path[node_id] = None
        node_id = mapping(nodes[node_id]).get("parent")
    return list(reversed(path))


def _role(message: dict[str, Any]) -> Role:
    return _ROLES.get(text(mapping(message.get("author")).get("role")), "other")


def _kind(message: dict[str, Any]) -> Kind:
    metadata, role = mapping(message.get("metadata")), _role(message)
    content_type = text(mapping(message.get("content")).get("content_type"))
    if role == "system":
        return "shown" if metadata.get("is_user_system_message") else "system"
    if role == "tool" or (role == "assistant" and _is_for_a_tool(message)):
        return "tool"
    if message.get("weight") == 0 or metadata.get("is_visually_hidden_from_conversation"):
        return "hidden"
    return "hidden" if content_type in _NEVER_SHOWN else "shown"


def _is_for_a_tool(message: dict[str, Any]) -> bool:
    content_type = mapping(message.get("content")).get("content_type")
    return message.get("recipient") not in ("all", "python", None) or content_type == "code"


def _text(content: dict[str, Any]) -> str:
    match content.get("content_type"):
        case "thoughts":
            parts = [text(mapping(part).get("content")) for part in sequence(content.get("thoughts"))]
        case "reasoning_recap":
            parts = [text(content.get("content"))]
        case "tether_browsing_display":
            parts = [text(content.get("result"))]
        case "user_editable_context":
            parts = [text(content.get("user_profile")), text(content.get("user_instructions"))]
        case _:
            parts = [_part(part) for part in sequence(content.get("parts"))] or [text(content.get("text"))]
    joined = "\n".join(part for part in parts if part)
    return _LEFT_OVER.sub("", _CITATIONS.sub("", joined)) if not joined.isascii() else joined


def _part(part: object) -> str:
    """Return a text, or what was said in an audio part; nothing for a picture."""
    return part if isinstance(part, str) else text(mapping(part).get("text"))


def _details(message: dict[str, Any]) -> dict[str, Any]:
    metadata = mapping(message.get("metadata"))
    names = [name(mapping(found).get("name")) for found in sequence(metadata.get("attachments"))]
    attachments = [found for found in names if found]
    model = name(metadata.get("model_slug")) if _role(message) == "assistant" else None
    return {**({"attachments": attachments} if attachments else {}), **({"model": model} if model else {})}


CHATGPT = Reader(
    name="chatgpt",
    title="ChatGPT export",
    looked_for="conversations with a `mapping` of messages",
    recognise=_recognise,
    read=_read,
)
