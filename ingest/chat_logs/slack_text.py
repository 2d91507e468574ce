"""The text of a Slack message as it was shown: its mark-up resolved, or what its blocks say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.slack_markup import channel, date, markup, person

if TYPE_CHECKING:
    from ingest.chat_logs.slack_export import Names

_INSTEAD_OF_BLOCKS = {"This content can't be displayed.", "[no preview available]"}


def shown_text(message: dict[str, Any], names: Names) -> str:
    """Return a message's text and that of its attachments; of previews only where there is nothing else."""
    said = markup(text(message.get("text")), names)
    if not said.strip() or said in _INSTEAD_OF_BLOCKS:
        said = _blocks(message.get("blocks"), names) or said
    parts = [said] if said.strip() else []
    for attachment in map(mapping, sequence(message.get("attachments"))):
        is_preview = "from_url" in attachment or "original_url" in attachment
        part = _attachment(attachment, names) if not (is_preview and said.strip()) else ""
        if part.strip() and not any(part in other for other in parts):
            parts.append(part)
    return "\n".join(parts)


def _attachment(attachment: dict[str, Any], names: Names) -> str:
    fields = [
        ": ".join(filter(None, [text(found.get("title")), text(found.get("value"))]))
        for found in map(mapping, sequence(attachment.get("fields")))
    ]
    written = [text(attachment.get(key)) for key in ("pretext", "title", "text")]
    parts = [markup(part, names) for part in (*written, *fields) if part]
    if not parts:
        parts = [_blocks(attachment.get("blocks"), names) or _fallback(attachment, names)]
    return "\n".join(parts)


def _fallback(attachment: dict[str, Any], names: Names) -> str:
    said = text(attachment.get("fallback"))
    return "" if said in _INSTEAD_OF_BLOCKS else markup(said, names)


def _blocks(blocks: object, names: Names) -> str:
    parts = [_block(mapping(block), names) for block in sequence(blocks)]
    return "\n".join(part for part in parts if part)


def _block(block: dict[str, Any], names: Names) -> str:
    elements = sequence(block.get("elements"))
    if block.get("type") == "rich_text":
        parts = [_rich(mapping(element), names) for element in elements]
    else:
        of_context = elements if block.get("type") == "context" else []
        texts = [block.get("title"), block.get("text"), *sequence(block.get("fields")), *of_context]
        parts = [_text_object(value, names) for value in texts]
    return "\n".join(part for part in parts if part)


def _text_object(value: object, names: Names) -> str:
    found = mapping(value)
    said = text(found.get("text"))
    return text(value) or (said if found.get("type") == "plain_text" else markup(said, names))


def _rich(element: dict[str, Any], names: Names) -> str:
    """Return a section, quote or code as one text, a list with an element a line."""
    elements = [mapping(found) for found in sequence(element.get("elements"))]
    if element.get("type") != "rich_text_list":
        return "".join(_span(found, names) for found in elements)
    is_ordered = element.get("style") == "ordered"
    lines = ["".join(_span(span, names) for span in sequence(found.get("elements"))) for found in elements]
    return "\n".join(f"{n}. {line}" if is_ordered else f"• {line}" for n, line in enumerate(lines, start=1))


_SPANS: dict[str, Callable[[dict[str, Any], Names], str]] = {
    "link": lambda span, _: text(span.get("text")) or text(span.get("url")),
    "user": lambda span, names: person(text(span.get("user_id")), names),
    "channel": lambda span, names: channel(text(span.get("channel_id")), names),
    "usergroup": lambda span, _: f"@{text(span.get('usergroup_id'))}",
    "broadcast": lambda span, _: f"@{text(span.get('range'))}",
    "emoji": lambda span, _: f":{text(span.get('name'))}:",
    "date": lambda span, _: text(span.get("fallback")) or date(span.get("timestamp")),
    "color": lambda span, _: text(span.get("value")),
}


def _span(span: object, names: Names) -> str:
    """Return one piece of a line. Its text is as it was written: without mark-up, nothing escaped."""
    found = mapping(span)
    show = _SPANS.get(text(found.get("type")))
    return show(found, names) if show else text(found.get("text"))


def attached_names(message: dict[str, Any]) -> list[str]:
    """Return the names of the message's files."""
    files = [mapping(found) for found in (*sequence(message.get("files")), message.get("file"))]
    names = [name(found.get("name")) or name(found.get("title")) for found in files]
    return [found for found in names if found]
