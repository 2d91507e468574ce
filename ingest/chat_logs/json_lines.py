"""Lines of JSON as exporters and people write them: blank lines and commas at the end happen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.reader import Sample
from ingest.chat_logs.text import lines
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.chat_logs.trees import Member

MAX_LINE_BYTES = 32 * 2**20
"""A longer line is a flaw: no conversation needs it, and it could fill this process."""


def objects(member: Member) -> Iterator[tuple[int, dict[str, Any] | Flaw]]:
    """Yield (line number from 1, its object or what is wrong with it) for each line that is not blank."""
    number = 0
    try:
        with member.open() as stream:
            for number, line in lines(stream, max_bytes=MAX_LINE_BYTES):
                if line is None or line.strip(" \t\r,"):
                    yield number, _object(line, Place(file=member.shown, at=f"line {number}"))
    except UnreadableMember as error:
        yield number, Flaw(place=Place(file=member.shown, at=f"after line {number}"), reason=str(error))


def conversations(member: Member) -> Iterator[tuple[Place, dict[str, Any] | Flaw]]:
    """Yield (place, object or flaw) for each line, or for each element where the file is one JSON list."""
    if not isinstance(Sample(member=member).value, list):
        for number, found in objects(member):
            yield Place(file=member.shown, at=f"line {number}"), found
        return
    n = 0
    try:
        for n, value in enumerate(values(member, "item"), start=1):
            place = Place(file=member.shown, at=f"conversation {n}")
            is_one = isinstance(value, dict)
            yield place, value if is_one else Flaw(place=place, reason="this is no JSON object")
    except UnreadableMember as error:
        place = Place(file=member.shown, at=f"after conversation {n}")
        yield place, Flaw(place=place, reason=str(error))


def _object(line: str | None, place: Place) -> dict[str, Any] | Flaw:
    if line is None:
        return Flaw(place=place, reason=f"this line has over {MAX_LINE_BYTES} bytes")
    try:
        found = json.loads(line.strip().rstrip(","))
    except (ValueError, RecursionError) as error:
        return Flaw(place=place, reason=f"this is no JSON: {error}", text=line[:1000])
    if isinstance(found, dict):
        return found
    return Flaw(place=place, reason="this is no JSON object", text=line[:1000])
