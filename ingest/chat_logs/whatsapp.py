"""WhatsApp's text export, of Android and iOS, in whatever way the telephone wrote its dates."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import PurePath
from typing import TYPE_CHECKING

from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from ingest.chat_logs.reader import DateOrder, Reader, ReadOptions, Sample
from ingest.chat_logs.text import lines
from ingest.chat_logs.trees import UnreadableMember
from ingest.chat_logs.whatsapp_lines import Lines, Start, date_of, date_orders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_MAX_LINE_BYTES = 8 * 2**20
_MAX_CHARACTERS = 4 * 2**20  # of one message
_LRM = "\u200e"  # stands before what the telephone says itself
_ATTACHED = re.compile(r"[\u200e]?(?:<[^:<>]+: ([^<>]+)>|(\S.*?\.\w{2,5}) \([^()]+\))\s*")
# Nothing is tried again from within a run of blanks or a mark: a text of any length is passed once.
_EDITED = re.compile(
    r"(?<!\s)\s*+[\u200e]?<(?=[^<>]*(?:edited|editada|editado|modifié|bearbeitet))[^<>]*+>\s*+$"
)
_PLACEHOLDER = re.compile(
    r"<(?=[^<>]*(?:omitted|omitido|omitida|omitidos|omesso|omis|ausgeschlossen|weggelassen|oculto))[^<>]*+>"
    r"|(?:image|video|audio|sticker|GIF|document|Contact card) omitted"
    r"|(?:This message was deleted|You deleted this message|This message was deleted by admin.*?)\.?",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Draft:
    """A message whose lines are still being read."""

    start: Start
    number: int  # of its first line
    lines: list[str] = field(default_factory=list)
    n_characters: int = 0

    def add(self, line: str) -> None:
        self.n_characters += len(line) + 1
        if self.n_characters <= _MAX_CHARACTERS:
            self.lines.append(line)


def _recognise(sample: Sample) -> str | None:
    first = next((line for line in sample.text.splitlines() if line.strip()), "")
    return "lines that begin with date, time and author" if Lines().start(first) else None


def _read(tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        try:
            order = _date_order(member, options)
            if isinstance(order, Flaw):
                yield order
            else:
                yield from _messages(member, _chat_name(tree, member), order, options)
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))


def _date_order(member: Member, options: ReadOptions) -> DateOrder | Flaw:
    """Read the whole file once, and say in which order it writes its dates, or why that cannot be told."""
    dates: list[tuple[tuple[int, int, int], bool]] = []
    for number, start, _ in _lines(member):
        if start is None:
            continue
        if options.date_order and date_of(start.numbers, options.date_order) is None:
            written = "/".join(map(str, start.numbers))
            reason = f"{written} is no date in the order {options.date_order} (--date-order)"
            return Flaw(place=Place(file=member.shown, at=f"line {number}"), reason=reason)
        if not dates or dates[-1][0] != start.numbers:
            dates.append((start.numbers, start.has_year_first))
    if options.date_order:
        return options.date_order
    orders = date_orders(dates)
    if len(orders) == 1:
        return orders[0]
    reason = (
        "its dates may be day/month or month/day: say which with --date-order dmy or --date-order mdy"
        if orders
        else "its dates are written in several orders, or are none: say the right one with --date-order"
    )
    return Flaw(place=Place(file=member.shown), reason=reason)


def _lines(member: Member) -> Iterator[tuple[int, Start | None, str]]:
    """Yield (number, start of a message if it is one, text) for each line."""
    grammar = Lines()
    with member.open() as stream:
        for number, line in lines(stream, max_bytes=_MAX_LINE_BYTES):
            yield number, grammar.start(line or ""), line or ""


def _messages(
    member: Member, chat: str, order: DateOrder, options: ReadOptions
) -> Iterator[ChatMessage | Flaw]:
    draft: _Draft | None = None
    for number, start, line in _lines(member):
        if start is not None:
            if draft is not None:
                yield _message(draft, member, chat, order, options)
            draft = _Draft(start, number)
            draft.add(start.rest)
        elif draft is not None:
            draft.add(line)
        elif line.strip():
            place = Place(file=member.shown, at=f"line {number}")
            yield Flaw(place=place, reason="this stands before the first message", text=line[:1000])
    if draft is not None:
        yield _message(draft, member, chat, order, options)


def _message(
    draft: _Draft, member: Member, chat: str, order: DateOrder, options: ReadOptions
) -> ChatMessage | Flaw:
    place = Place(file=member.shown, at=f"line {draft.number}")
    written = draft.start.at(order)
    if written is None:
        return Flaw(place=place, reason=f"this is no time in the order {order}", text=draft.lines[0][:1000])
    if draft.n_characters > _MAX_CHARACTERS:
        reason = f"this message has over {_MAX_CHARACTERS} characters"
        return Flaw(place=place, reason=reason, text=draft.lines[0][:1000])
    author, text = _author("\n".join(draft.lines))
    kind, text, details = _content(text) if author else ("system", text, {})
    return ChatMessage(
        conversation_id=chat,
        title=chat,
        role="system" if author is None else "user" if author == options.own_name else "other",
        text=text,
        place=place,
        author=author,
        created_at=written.replace(tzinfo=options.time_zone or UTC).astimezone(UTC),
        tz_known=options.time_zone is not None,
        kind=kind,
        details=details,
    )


def _author(text: str) -> tuple[str | None, str]:
    """Return who speaks, up to the first colon and blank of the first line, and what is said."""
    first, _, _ = text.partition("\n")
    author, colon, _ = first.partition(": ")
    if not colon and first.endswith(":"):  # the first line of what is said is empty
        author, colon = first[:-1], ":"
    author = author.strip(" \u200e\u202a\u202c~\u00a0\u202f")
    if not colon or not author:
        return None, text.lstrip(_LRM)
    return author, text[len(first.partition(colon)[0]) + len(colon) :]


def _content(text: str) -> tuple[Kind, str, dict[str, list[str] | bool]]:
    """Return what the person said, and what else is known of it: an attached file, that it was edited."""
    details: dict[str, list[str] | bool] = {}
    shown = _EDITED.sub("", text)
    if shown != text:
        details["edited"] = True
    if attached := _ATTACHED.match(shown):
        details["attachments"] = [(attached[1] or attached[2]).lstrip(_LRM)]
        shown = shown[attached.end() :]
    is_said_by_itself = shown.startswith(_LRM) or _PLACEHOLDER.fullmatch(shown.strip(f" \n{_LRM}"))
    return "hidden" if is_said_by_itself else "shown", shown.lstrip(_LRM), details


def _chat_name(tree: Tree, member: Member) -> str:
    """Return the other person's or the group's name: of the file, or of the zip around `_chat.txt`."""
    stem = PurePath(member.name).stem
    if stem.lower() == "_chat":
        parent = PurePath(member.name).parent.name
        stem = parent or PurePath(tree.shown).stem
    for prefix in ("WhatsApp Chat with ", "WhatsApp Chat - "):
        stem = stem.removeprefix(prefix)
    return stem.strip() or "chat"


WHATSAPP = Reader(
    name="whatsapp",
    title="WhatsApp text export",
    looked_for="lines that begin with date, time and author",
    recognise=_recognise,
    read=_read,
)
