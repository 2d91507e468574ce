"""Slack's mark-up as people see it: mentions, channels, links, dates and entities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ingest.chat_logs.instants import from_epoch

if TYPE_CHECKING:
    from ingest.chat_logs.slack_export import Names

_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}
# `<@U1|label>`, `<https://u|label>`. Slack escapes `<` in what people write; other programs do not always.
_MARK = re.compile(r"<([@#!][^<>|]*|[A-Za-z][A-Za-z0-9+.-]*:[^<>|]*)(?:\|([^<>]*))?>|&(?:amp|lt|gt);")


def markup(raw: str, names: Names) -> str:
    """Return the text with mentions, links, dates and entities as people see them; emoji stay `:smile:`."""
    if "<" not in raw and "&" not in raw:
        return raw
    return _MARK.sub(lambda found: _resolved(found, names), raw)


def _resolved(found: re.Match[str], names: Names) -> str:
    if found[1] is None:
        return _ENTITIES[found[0]]
    target, label = found[1], _unescaped(found[2] or "")
    sign, rest = target[0], target[1:]
    if sign == "@":
        return person(rest, names, label=label)
    if sign == "#":
        return f"#{label}" if label else channel(rest, names)
    if sign == "!":
        return _special(rest, label)
    return label or _unescaped(target).removeprefix("mailto:").removeprefix("tel:")


def _unescaped(raw: str) -> str:
    return raw.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def person(user_id: str, names: Names, *, label: str = "") -> str:
    """Return a mention by the name of today; by the one in the text where no list has it, else by the id."""
    return "@" + (names.people.get(user_id) or label.lstrip("@") or user_id)


def channel(channel_id: str, names: Names) -> str:
    """Return a channel by its name, else by its id."""
    found = names.channels.get(channel_id)
    return f"#{found.title if found else channel_id}"


def _special(target: str, label: str) -> str:
    """Return `@here` and the like, a group of people (`subteam^S1`), or a date (`date^1700000000^format`)."""
    what, *rest = target.split("^")
    if what == "date":
        return label or date(rest[0] if rest else None)
    return "@" + (label.lstrip("@") or (rest[0] if what == "subteam" and rest else what))


def date(seconds: object) -> str:
    """Return an instant that has no words of its own, for people."""
    instant = from_epoch(seconds)
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else ""
