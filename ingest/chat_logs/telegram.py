"""Telegram Desktop's export (`result.json`): one chat, or all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch, from_iso
from ingest.chat_logs.json_values import events, values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from ingest.chat_logs.trees import Member, Tree

_LISTS = ("chats.list.item", "left_chats.list.item")
_TYPES = {
    "saved_messages",
    "personal_chat",
    "bot_chat",
    "private_group",
    "private_supergroup",
    "public_supergroup",
    "private_channel",
    "public_channel",
}

_NO_VALUE = {"map_key", "end_map", "end_array"}  # events that begin none


@dataclass(slots=True)
class _Chat:
    """One chat of the export, and how many messages it has."""

    id: str | None = None
    title: str | None = None
    n_messages: int = 0


def _recognise(sample: Sample) -> str | None:
    first = sample.value if isinstance(sample.value, dict) else {}
    if text(first.get("type")) in _TYPES and "id" in first:
        return "a chat of one of Telegram's types"
    chats = [*sequence(mapping(first.get("chats")).get("list")), *sequence(first.get("left_chats"))]
    is_export = "chats" in first and (
        "about" in first or any(text(mapping(c).get("type")) in _TYPES for c in chats)
    )
    return "`chats` as Telegram lists them" if is_export else None


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        try:
            first = Sample(member=member).first
            if "chats" in first or "left_chats" in first:
                for prefix in _LISTS:
                    yield from _all_chats(member, prefix, options)
            else:
                chat = _chat(first)
                yield from _messages(member, values(member, "messages.item"), chat, options)
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))


def _all_chats(member: Member, prefix: str, options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    """Read in two passes: no chat is ever whole in memory, and its name is known before its messages."""
    messages = values(member, f"{prefix}.messages.item")
    for chat in _chats(member, prefix):
        some = (message for _, message in zip(range(chat.n_messages), messages, strict=False))
        yield from _messages(member, some, chat, options)
    yield from _messages(member, messages, _Chat(), options)  # a file that ends too soon says so here


def _chats(member: Member, prefix: str) -> list[_Chat]:
    found: list[_Chat] = []
    in_message = f"{prefix}.messages.item"
    try:
        for place, event, value in events(member):
            if place == prefix and event == "start_map":
                found.append(_Chat())
            elif place == in_message and event not in _NO_VALUE:
                found[-1].n_messages += 1
            elif place == f"{prefix}.name" and isinstance(value, str):
                found[-1].title = name(value)
            elif place == f"{prefix}.id":
                found[-1].id = name(value)
            elif place == f"{prefix}.type" and value == "saved_messages":
                found[-1].title = "Saved messages"
    except UnreadableMember:
        pass  # the second pass comes to the same place, and says so
    return found


def _chat(head: dict[str, Any]) -> _Chat:
    saved = head.get("type") == "saved_messages"
    return _Chat(id=name(head.get("id")), title="Saved messages" if saved else name(head.get("name")))


def _messages(
    member: Member, found: Iterator[Any], chat: _Chat, options: ReadOptions
) -> Iterator[ChatMessage | Flaw]:
    n = 0
    chat_name = f"chat {chat.title or chat.id}"
    try:
        for n, value in enumerate(found, start=1):
            message = mapping(value)
            place = Place(file=member.shown, at=f"{chat_name}, message {name(message.get('id')) or n}")
            if chat.id is None or name(message.get("id")) is None:
                missing = "the chat" if chat.id is None else "this message"
                yield Flaw(place=place, reason=f"{missing} has no `id`")
            elif message.get("type") != "unsupported":
                yield _message(message, chat, place, options)
    except UnreadableMember as error:
        yield Flaw(place=Place(file=member.shown, at=f"{chat_name}, after message {n}"), reason=str(error))


def _message(message: dict[str, Any], chat: _Chat, place: Place, options: ReadOptions) -> ChatMessage:
    author = name(message.get("from")) or name(message.get("actor"))
    is_service = message.get("type") == "service"
    said_at, tz_known = _said_at(message, options)
    return ChatMessage(
        conversation_id=chat.id or "",
        title=chat.title,
        role="system" if is_service else "user" if author and author == options.own_name else "other",
        text=_service(message) if is_service else _text(message),
        place=place,
        message_id=name(message.get("id")),
        parent_id=name(message.get("reply_to_message_id")),
        author=author,
        created_at=said_at,
        tz_known=tz_known,
        kind=_kind(message),
        details=_details(message),
    )


def _kind(message: dict[str, Any]) -> Kind:
    return "system" if message.get("type") == "service" else "shown"


def _said_at(message: dict[str, Any], options: ReadOptions) -> tuple[datetime | None, bool]:
    """Return when it was said, and whether the zone is known: old exports write only the local time."""
    if instant := from_epoch(message.get("date_unixtime")):
        return instant, True
    return from_iso(message.get("date"), zone=options.time_zone), options.time_zone is not None


def _service(message: dict[str, Any]) -> str:
    words = [name(message.get(key)) for key in ("actor", "action", "title")]
    return " ".join(word.replace("_", " ") for word in words if word)


def _text(message: dict[str, Any]) -> str:
    """Return the text with nothing between its parts; `text_entities` holds the same, always as a list."""
    written = message.get("text")
    if isinstance(written, str) and written:
        return written
    parts = written if isinstance(written, list) and written else sequence(message.get("text_entities"))
    return "".join(_part(part) for part in parts)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    entity = mapping(part)
    shown, href = text(entity.get("text")), text(entity.get("href"))
    return f"{shown} ({href})" if href and href != shown else shown


def _details(message: dict[str, Any]) -> dict[str, Any]:
    file = name(message.get("file_name")) or name(message.get("media_type"))
    found = {
        "attachments": [file] if file else None,
        "forwarded_from": name(message.get("forwarded_from")),
        "via_bot": name(message.get("via_bot")),
        "edited": True if message.get("edited") or message.get("edited_unixtime") else None,
        "author_id": name(message.get("from_id")) if message.get("from") is None else None,
    }
    return {key: value for key, value in found.items() if value}


TELEGRAM = Reader(
    name="telegram",
    title="Telegram Desktop export",
    looked_for="a chat of one of Telegram's types, or `chats`",
    recognise=_recognise,
    read=_read,
)
