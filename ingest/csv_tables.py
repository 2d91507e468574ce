"""CSV and TSV: a memory a row, under a first line that names the columns."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.text import CleanUtf8
from ingest.chat_logs.trees import UnreadableMember
from ingest.tables import fields_of, memories

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ingest.chat_logs.trees import Member, Tree
    from memory.messages import RawMemory

MAX_CELL_CHARACTERS = 8 * 2**20
"""A longer cell is refused: no memory needs it, and it could fill this process."""

_SEPARATORS = (",", ";", "\t", "|")
_ENDINGS = (".csv", ".tsv")
_BUFFER_BYTES = 256 * 1024

csv.field_size_limit(MAX_CELL_CHARACTERS)  # of the process: 128 KiB otherwise


def _recognise(sample: Sample) -> str | None:
    first, _, _ = sample.text.lstrip("\n").partition("\n")
    cells = [cell.strip() for cell in _cells(first)]
    if len(cells) > 1 and "content" in cells:
        return "a first line that names `content` among its columns"
    return "its name" if sample.member.name.lower().endswith(_ENDINGS) else None


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[RawMemory | Flaw]:
    for member in members:
        try:
            with member.open() as stream:
                yield from _memories(stream, member, options)
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))


def _memories(stream: Any, member: Member, options: ReadOptions) -> Iterator[RawMemory | Flaw]:
    clean = io.BufferedReader(CleanUtf8(stream), buffer_size=_BUFFER_BYTES)
    text = io.TextIOWrapper(clean, encoding="utf-8", newline="")
    first = _first_line(text)
    lines = csv.reader(text, delimiter=_separator(first), strict=True)
    header = [cell.strip() for cell in next(csv.reader([first], delimiter=_separator(first)), [])]
    fields = fields_of(header, options.columns)
    yield from memories(_rows(lines, header, member.shown), fields, options)


def _rows(lines: Any, header: Sequence[str], name: str) -> Iterator[tuple[Place, Mapping[str, str]] | Flaw]:
    while True:
        place = Place(file=name, at=f"line {lines.line_num + 2}")  # the first one was read before
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Flaw(place=place, reason=f"this row cannot be read: {_explained(error)}")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            reason = f"this row has {len(cells)} cells, and the first line names {len(header)} columns"
            yield Flaw(place=place, reason=reason, text=str(cells)[:1000])
            continue
        yield place, dict(zip(header, cells, strict=True))


def _explained(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quotation mark that opens here is closed nowhere behind"
    return str(error)


def _first_line(text: io.TextIOWrapper) -> str:
    while line := text.readline(MAX_CELL_CHARACTERS):
        if line.strip():
            return line.rstrip("\r\n")
    raise UnreadableMember("there is no line that names the columns")


def _separator(first: str) -> str:
    """Return what separates most columns in the first line."""
    return max(_SEPARATORS, key=lambda separator: len(_cells(first, separator)))


def _cells(line: str, separator: str | None = None) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator or _separator(line)), [])
    except csv.Error:
        return []


CSV = Reader(
    name="csv",
    title="CSV",
    looked_for="a first line that names `content` among its columns, or a name that ends in .csv or .tsv",
    recognise=_recognise,
    read=_read,
)
