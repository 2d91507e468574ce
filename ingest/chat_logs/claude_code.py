"""Claude Code's sessions: a line for each message of person, assistant and tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_iso
from ingest.chat_logs.json_lines import objects
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree


def _recognise(sample: Sample) -> str | None:
    # A session may begin with lines of other kinds.
    lines = sample.text.splitlines()[:20]
    found = isinstance(sample.value, dict) and any(
        all(f'"{sign}"' in line for sign in ("sessionId", "parentUuid")) for line in lines
    )
    return "lines with `sessionId` and `parentUuid`" if found else None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        for number, line in objects(member):
            if isinstance(line, Flaw):
                yield line
            elif line.get("type") in ("user", "assistant"):
                yield _message(line, Place(file=member.shown, at=f"line {number}"))


def _message(line: dict[str, Any], place: Place) -> ChatMessage | Flaw:
    session = name(line.get("sessionId"))
    if session is None:
        return Flaw(place=place, reason="this message has no `sessionId`")
    message = mapping(line.get("message"))
    model = name(message.get("model"))
    return ChatMessage(
        conversation_id=session,
        title=None,
        role="assistant" if line.get("type") == "assistant" else "user",
        text=_text(message.get("content")),
        place=place,
        message_id=name(line.get("uuid")),
        parent_id=name(line.get("parentUuid")),
        created_at=from_iso(line.get("timestamp")),
        kind=_kind(line, message.get("content")),
        details={"model": model} if model else {},
    )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = [mapping(block) for block in sequence(content)]
    return "\n\n".join(text(block.get("text")) for block in blocks if block.get("type") == "text")


def _kind(line: dict[str, Any], content: object) -> Kind:
    if line.get("isMeta"):
        return "hidden"
    types = {text(mapping(block).get("type")) for block in sequence(content)}
    return "tool" if types and "text" not in types else "shown"


CLAUDE_CODE = Reader(
    name="claude_code",
    title="Claude Code session",
    looked_for="lines with `sessionId` and `parentUuid`",
    recognise=_recognise,
    read=_read,
    is_lines=True,
)
