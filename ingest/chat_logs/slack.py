"""Slack's export: a folder for each channel, in it a file of messages for each day."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch
from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, text
from ingest.chat_logs.slack_export import Channel, Names, exports, person_name, read_names
from ingest.chat_logs.slack_text import attached_names, shown_text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_TS = re.compile(r"\d+(\.\d+)?", re.ASCII)
_SHOWN = {
    "assistant_app_thread",
    "bot_message",
    "file_comment",
    "file_share",
    "me_message",
    "reply_broadcast",
    "slackbot_response",
    "thread_broadcast",
}
_HIDDEN = {"ekm_access_denied", "message_changed", "message_deleted", "message_replied", "tombstone"}


def _gather(tree: Tree) -> Sequence[Member]:
    found: dict[str, Member] = {}
    for export in exports(tree.members):
        if export.is_slack():
            days = [day for folder in export.folders.values() for day in folder]
            found.update((member.name, member) for member in (*export.lists, *days))
    return sorted(found.values(), key=lambda member: member.name)


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for export in exports(members):
        names, flaws = read_names(export)
        yield from flaws
        for folder, days in export.folders.items():
            channel = names.channel_of(folder)
            for day in days:
                for found in _day(day):
                    yield (
                        found
                        if isinstance(found, Flaw)
                        else _message(found, day, channel=channel, names=names, options=options)
                    )


def _day(member: Member) -> Iterator[dict[str, Any] | Flaw]:
    """Yield what is wrong with a day's file, then its messages in the order of their time."""
    dated: list[tuple[Decimal, dict[str, Any]]] = []
    n = 0
    try:
        for n, value in enumerate(values(member, "item"), start=1):
            message = mapping(value)
            if ts := _ts(message.get("ts")):
                dated.append((Decimal(ts), message))
            else:
                yield _flaw(member, f"message {n}", "this message has no `ts`", text(message.get("text")))
        if n == 0 and Sample(member=member).value != []:
            yield _flaw(member, "", "this is no list of messages")
    except UnreadableMember as error:
        yield _flaw(member, f"after message {n}", str(error))
    dated.sort(key=lambda found: found[0])
    yield from (message for _, message in dated)


def _message(
    message: dict[str, Any], member: Member, *, channel: Channel, names: Names, options: ReadOptions
) -> ChatMessage:
    ts, thread_ts = _ts(message.get("ts")), _ts(message.get("thread_ts"))
    author = _author(message, names)
    return ChatMessage(
        conversation_id=channel.id,
        title=channel.title,
        role="user" if author is not None and author == options.own_name else "other",
        text=shown_text(message, names),
        place=Place(file=member.shown, at=f"message {ts}"),
        message_id=ts,
        parent_id=thread_ts if thread_ts != ts else None,
        author=author,
        created_at=from_epoch(ts),
        kind=_kind(message),
        details=_details(message),
    )


def _ts(value: object) -> str | None:
    """Return the time that is a message's id, with all of its digits."""
    written = f"{value:.6f}" if isinstance(value, float) else name(value) or ""
    return written if _TS.fullmatch(written) else None


def _author(message: dict[str, Any], names: Names) -> str | None:
    """Return who is shown to speak: a program under the name that it gave, a person under theirs."""
    user = name(message.get("user")) or name(mapping(message.get("comment")).get("user"))
    is_bot = message.get("subtype") == "bot_message" or name(message.get("bot_id")) is not None
    candidates = (
        name(message.get("username")) if is_bot or user is None else None,
        names.people.get(user) if user else None,
        person_name(mapping(message.get("user_profile"))),
        name(mapping(message.get("bot_profile")).get("name")) if is_bot else None,
        user,
        name(message.get("bot_id")),
    )
    return next((found for found in candidates if found), None)


def _kind(message: dict[str, Any]) -> Kind:
    subtype = text(message.get("subtype"))
    if subtype in _HIDDEN or message.get("hidden") is True:
        return "hidden"
    is_message = message.get("type", "message") == "message"
    return "shown" if is_message and (not subtype or subtype in _SHOWN) else "system"


def _details(message: dict[str, Any]) -> dict[str, Any]:
    attachments = attached_names(message)
    found: dict[str, Any] = {"attachments": attachments} if attachments else {}
    return found | ({"edited": True} if message.get("edited") else {})


def _flaw(member: Member, at: str, reason: str, said: str = "") -> Flaw:
    return Flaw(place=Place(file=member.shown, at=at), reason=reason, text=said[:1000])


SLACK = Reader(
    name="slack",
    title="Slack export",
    looked_for="folders of daily files `YYYY-MM-DD.json` with messages that have a `ts`",
    gather=_gather,
    read=_read,
)
