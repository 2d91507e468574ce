"""OpenAI's `messages`: a conversation a line, as for fine-tuning; and the answers of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch
from ingest.chat_logs.json_lines import conversations
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place, Role
from ingest.chat_logs.nameless import NamelessConversations
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def _recognise(sample: Sample) -> str | None:
    first = sample.first
    messages = sequence(first.get("messages"))
    if messages and isinstance(mapping(messages[0]).get("role"), str):
        return "`messages` with a `role` each"
    if "custom_id" in first and "response" in first:
        return "answers of a batch, with `custom_id` and `response`"
    return None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        names = NamelessConversations()
        for place, found in conversations(member):
            if isinstance(found, Flaw):
                yield found
            elif "custom_id" in found:
                yield _answer(found, place)
            else:
                yield from _messages(found, place, names)


def _messages(
    found: dict[str, Any], place: Place, names: NamelessConversations
) -> Iterator[ChatMessage | Flaw]:
    messages = sequence(found.get("messages"))
    if not messages:
        yield Flaw(place=place, reason="this conversation has no `messages`")
        return
    conversation_id = name(found.get("id")) or names.name(_opening(messages))
    for n, value in enumerate(messages, start=1):
        here = Place(file=place.file, at=f"{place.at}, message {n}")
        if not isinstance(value, dict):
            yield Flaw(place=here, reason="this is no message")
            continue
        yield ChatMessage(
            conversation_id=conversation_id,
            title=None,
            role=_ROLES.get(text(value.get("role")), "other"),
            text=_text(value.get("content")),
            place=here,
            author=name(value.get("name")),
            kind=_kind(value),
        )


def _opening(messages: list[Any]) -> list[Any]:
    """Return the messages up to the first that is no instruction: many begin with the same instruction."""
    n = next((n for n, m in enumerate(messages) if _ROLES.get(text(mapping(m).get("role"))) != "system"), 0)
    return messages[: n + 1]


def _answer(found: dict[str, Any], place: Place) -> ChatMessage | Flaw:
    """Return what a batch answered; the question stands in another file."""
    custom_id = name(found.get("custom_id"))
    body = mapping(mapping(found.get("response")).get("body"))
    choices = sequence(body.get("choices"))
    if custom_id is None or not choices:
        reason = text(mapping(found.get("error")).get("message")) or "no choices"
        return Flaw(place=place, reason=f"this request of a batch has no answer: {reason}")
    message = mapping(mapping(choices[0]).get("message"))
    model = name(body.get("model"))
    return ChatMessage(
        conversation_id=custom_id,
        title=None,
        role="assistant",
        text=_text(message.get("content")),
        place=place,
        message_id=name(body.get("id")),
        created_at=from_epoch(body.get("created")),
        kind=_kind(message),
        details={"model": model} if model else {},
    )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part for value in sequence(content) if (part := text(mapping(value).get("text"))))


def _kind(message: dict[str, Any]) -> Kind:
    role = _ROLES.get(text(message.get("role")), "other")
    if role in ("system", "tool"):
        return "system" if role == "system" else "tool"
    only_calls = bool(message.get("tool_calls") or message.get("function_call"))
    return "tool" if only_calls and not _text(message.get("content")).strip() else "shown"


OPENAI = Reader(
    name="openai",
    title="OpenAI messages",
    looked_for="`messages` with a `role` each, or answers of a batch",
    recognise=_recognise,
    read=_read,
    is_lines=True,
)
