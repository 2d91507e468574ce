"""Discord's own data package: what one person wrote, in a folder for each channel; nobody else's messages."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_iso
from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import ChatMessage, Flaw, Place
from ingest.chat_logs.reader import Sample
from ingest.chat_logs.shapes import mapping, name, text
from ingest.chat_logs.text import CleanUtf8
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ingest.chat_logs.trees import Member

_PART = re.compile(r"(?:(.*)/)?(?:c?([0-9]+)/(messages\.json|messages\.csv|channel\.json)|index\.json)")
_CSV_HEAD = "ID,Timestamp,Contents"


@dataclass(frozen=True, slots=True)
class _Channel:
    id: str
    title: str | None


def belonging(members: Iterable[Member]) -> Sequence[Member]:
    """Return the members of each folder of channels, of which one has messages as Discord writes them."""
    roots: dict[str, list[Member]] = {}
    for member in members:
        if match := _PART.fullmatch(member.name):
            roots.setdefault(match[1] or "", []).append(member)
    return [
        member
        for found in roots.values()
        if any(_begins_with_a_message(each) for each in found)
        for member in found
    ]


def read(members: Iterable[Member]) -> Iterator[ChatMessage | Flaw]:
    """Yield the messages of each channel in the order of their ids: the files have the newest first."""
    titles: dict[str, str] = {}
    details: dict[str, dict[str, Any]] = {}
    messages: list[Member] = []
    for member in members:
        folder, _, file = member.name.rpartition("/")
        if file.startswith("messages."):
            messages.append(member)
            continue
        try:
            value = mapping(next(values(member, ""), None))
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))
            continue
        if file == "channel.json":
            details[folder] = value
        else:
            titles.update((key, text(title)) for key, title in value.items())
    for member in messages:
        folder = member.name.rpartition("/")[0]
        yield from _channel_messages(member, _channel(folder, details.get(folder, {}), titles))


def _channel(folder: str, details: dict[str, Any], titles: dict[str, str]) -> _Channel:
    channel_id = name(details.get("id")) or folder.rpartition("/")[2].removeprefix("c")
    found = (name(mapping(details.get("guild")).get("name")), name(details.get("name")))
    title = " / ".join(part for part in found if part)
    return _Channel(id=channel_id, title=title or titles.get(channel_id) or None)


def _channel_messages(member: Member, channel: _Channel) -> Iterator[ChatMessage | Flaw]:
    found: list[tuple[str, ChatMessage]] = []
    n = 0
    try:
        for n, row in enumerate(_rows(member), start=1):
            place = Place(file=member.shown, at=f"message {n}")
            if message_id := name(row.get("ID")):
                found.append((message_id, _message(row, message_id, channel=channel, place=place)))
            else:
                yield Flaw(
                    place=place, reason="this message has no ID", text=text(row.get("Contents"))[:1000]
                )
    except UnreadableMember as error:
        yield Flaw(place=Place(file=member.shown, at=f"after message {n}"), reason=str(error))
    found.sort(key=lambda pair: (len(pair[0]), pair[0]))
    yield from (message for _, message in found)


def _message(row: dict[str, Any], message_id: str, *, channel: _Channel, place: Place) -> ChatMessage:
    attachments = [url.partition("?")[0].rpartition("/")[2] for url in text(row.get("Attachments")).split()]
    return ChatMessage(
        conversation_id=channel.id,
        title=channel.title,
        role="user",
        text=text(row.get("Contents")),
        place=place,
        message_id=message_id,
        created_at=from_iso(row.get("Timestamp")),
        details={"attachments": attachments} if attachments else {},
    )


def _rows(member: Member) -> Iterator[dict[str, Any]]:
    if member.name.endswith(".json"):
        yield from map(mapping, values(member, "item"))
        return
    with member.open() as stream:
        lines = io.TextIOWrapper(io.BufferedReader(CleanUtf8(stream)), encoding="utf-8", newline="")
        try:
            yield from csv.DictReader(lines)
        except csv.Error as error:
            raise UnreadableMember(f"this is no CSV from here on ({error})") from error


def _begins_with_a_message(member: Member) -> bool:
    try:
        sample = Sample(member=member)
        if member.name.endswith("messages.csv"):
            return sample.text.startswith(_CSV_HEAD)
        is_messages = member.name.endswith("messages.json") and isinstance(sample.value, list)
        return is_messages and {"ID", "Timestamp", "Contents"} <= sample.first.keys()
    except UnreadableMember:
        return False
