"""Discord as DiscordChatExporter saves it: a file for each channel, or several with a part of it each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.chat_logs import discord_package
from ingest.chat_logs.discord_text import shown_text
from ingest.chat_logs.instants import from_iso
from ingest.chat_logs.json_values import events, values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

# Kinds that the exporter has no word for stand as Discord's number: 20 and 23 answer a command.
_SHOWN = {"Default", "Reply", "0", "19", "20", "23"}
_HEAD = ("guild.name", "channel.id", "channel.name", "messages.item.id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A file, and what it says of its channel before the messages."""

    member: Member
    channel_id: str
    title: str | None
    first_id: str


def _recognise(sample: Sample) -> str | None:
    value = mapping(sample.value)
    has_ids = all(name(mapping(value.get(key)).get("id")) for key in ("guild", "channel"))
    return "a `guild` and a `channel` of `messages`" if has_ids and "messages" in value else None


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    channels: dict[str, list[_Part]] = {}
    of_package = frozenset(discord_package.belonging(members))
    for member in members:
        if member in of_package:
            continue
        try:
            part = _part(member)
            channels.setdefault(part.channel_id, []).append(part)
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))
    for parts in channels.values():
        for part in sorted(parts, key=_age):
            yield from _messages(part, options)
    yield from discord_package.read(member for member in members if member in of_package)


def _part(member: Member) -> _Part:
    """Read a file up to its first message."""
    found: dict[str, str] = {}
    for prefix, event, value in events(member):
        if prefix in _HEAD and (said := name(value)):
            found.setdefault(prefix, said)
        is_at_messages = "messages.item.id" in found or (prefix, event) == ("messages", "end_array")
        if is_at_messages and "channel.id" in found:
            break
    if "channel.id" not in found:
        raise UnreadableMember("it names no channel")
    names = [found[key] for key in ("guild.name", "channel.name") if key in found]
    return _Part(
        member=member,
        channel_id=found["channel.id"],
        title=" / ".join(names) or None,
        first_id=found.get("messages.item.id", ""),
    )


def _age(part: _Part) -> tuple[int, str]:
    """Return the order of ids: numbers that grow with time, with as many digits as they need."""
    return len(part.first_id), part.first_id


def _messages(part: _Part, options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    n = 0
    try:
        for n, value in enumerate(values(part.member, "messages.item"), start=1):
            yield _message(
                mapping(value), part, place=Place(file=part.member.shown, at=f"message {n}"), options=options
            )
    except UnreadableMember as error:
        yield Flaw(place=Place(file=part.member.shown, at=f"after message {n}"), reason=str(error))


def _message(
    message: dict[str, Any], part: _Part, *, place: Place, options: ReadOptions
) -> ChatMessage | Flaw:
    if (message_id := name(message.get("id"))) is None:
        return Flaw(place=place, reason="this message has no id", text=text(message.get("content"))[:1000])
    author = mapping(message.get("author"))
    names = [found for key in ("nickname", "name") if (found := name(author.get(key)))]
    return ChatMessage(
        conversation_id=part.channel_id,
        title=part.title,
        role="user" if options.own_name in names else "other",
        text=shown_text(message),
        place=place,
        message_id=message_id,
        parent_id=_parent_id(message, part),
        author=names[0] if names else name(author.get("id")),
        created_at=from_iso(message.get("timestamp")),
        kind=_kind(message),
        details=_details(message),
    )


def _kind(message: dict[str, Any]) -> Kind:
    is_answer = bool(mapping(message.get("interaction")))
    return "shown" if is_answer or (name(message.get("type")) or "Default") in _SHOWN else "system"


def _parent_id(message: dict[str, Any], part: _Part) -> str | None:
    """Return the message of this channel that is answered; what is forwarded is no answer."""
    reference = mapping(message.get("reference"))
    is_here = (name(reference.get("channelId")) or part.channel_id) == part.channel_id
    is_answer = is_here and reference.get("type") != "Forward"
    return name(reference.get("messageId")) if is_answer else None


def _details(message: dict[str, Any]) -> dict[str, Any]:
    forwarded = mapping(message.get("forwardedMessage"))
    files = [*sequence(message.get("attachments")), *sequence(forwarded.get("attachments"))]
    names = [file_name for file in files if (file_name := name(mapping(file).get("fileName")))]
    found: dict[str, Any] = {"attachments": names} if names else {}
    if message.get("timestampEdited"):
        found["edited"] = True
    return found | ({"forwarded": True} if forwarded else {})


DISCORD = Reader(
    name="discord",
    title="Discord (DiscordChatExporter, or Discord's own data package)",
    looked_for="a `guild` and a `channel` of `messages`; folders of a `messages.json` with `Contents`",
    recognise=_recognise,
    gather=lambda tree: discord_package.belonging(tree.members),
    read=_read,
)
