"""The text of a Discord message as it was shown: its own, that of a forwarded one, or what its embeds say."""

from __future__ import annotations

import re
from typing import Any

from ingest.chat_logs.shapes import mapping, name, sequence, text

# Only where mark-up was left as it is: `<@!1>`, `<:tea:2>`, `<a:steam:3>`.
_MARK = re.compile(r"<(?:@!?([0-9]+)|a?(:[^<>:\s]+:)[0-9]+)>", re.ASCII)


def shown_text(message: dict[str, Any]) -> str:
    """Return what was written, in the message or in the one that it forwards; else what its embeds say."""
    parts = []
    for source in (message, mapping(message.get("forwardedMessage"))):
        content = text(source.get("content"))
        parts.append(content if content.strip() else _embeds(source))
    said = "\n".join(part for part in parts if part)
    if "<" not in said:
        return said
    people = {name(found.get("id")): found for found in map(mapping, sequence(message.get("mentions")))}
    return _MARK.sub(lambda found: found[2] or _mention(found, people), said)


def _mention(found: re.Match[str], people: dict[str | None, dict[str, Any]]) -> str:
    person = people.get(found[1], {})
    known = name(person.get("nickname")) or name(person.get("name"))
    return f"@{known}" if known else found[0]


def _embeds(message: dict[str, Any]) -> str:
    parts: list[str] = []
    for embed in map(mapping, sequence(message.get("embeds"))):
        parts += [text(embed.get("title")), text(embed.get("description"))]
        for field in map(mapping, sequence(embed.get("fields"))):
            parts.append(": ".join(filter(None, [text(field.get("name")), text(field.get("value"))])))
    return "\n".join(part for part in parts if part)
