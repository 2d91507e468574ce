"""Tables as memories: a memory a row, each of its fields in a column."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.instants import from_epoch, from_iso
from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.text import clean
from ingest.chat_logs.trees import UnreadableMember
from ingest.hashed_names import HashedNames
from memory.errors import InvalidMemory
from memory.messages import FIELDS, from_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ingest.chat_logs.reader import ReadOptions
    from memory.messages import RawMemory

    Columns = tuple[tuple[str, str], ...]
    """(field, column): where each field of a memory stands; `metadata.KEY` is a field too"""

_IN_METADATA = "metadata."
_TEXTS = {"content", "source", "uid", "namespace", "memory_type"}
_PER_SECOND = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3))  # what a number so large counts, since 1970
_SHOWN_COLUMNS = 30
_LONG_NUMBER = re.compile(r"-?[0-9]{9,20}(\.[0-9]{1,20})?")  # a date has eight digits


def parse_columns(texts: Iterable[str]) -> Columns:
    """Read `FIELD=COLUMN` for each field whose column has another name.

    Raises:
        InvalidMemory: it is not of that form, or there is no such field, or one is named twice.

    """
    found: dict[str, str] = {}
    for text in texts:
        field, _, column = text.partition("=")
        is_field = field in FIELDS or (field.startswith(_IN_METADATA) and field != _IN_METADATA)
        if not is_field or not column or field in found:
            allowed = f"FIELD=COLUMN, once each, FIELD one of {', '.join(sorted(FIELDS))}, metadata.KEY"
            raise InvalidMemory(field="column", value=text, allowed=allowed)
        found[field] = column
    return tuple(found.items())


def fields_of(header: Sequence[str], columns: Columns) -> dict[str, str]:
    """Return the column of each field: as it was said, else the one of the field's name.

    Raises:
        UnreadableMember: a column is not there, or twice, or none is said to be the content.

    """
    found = {field: field for field in sorted(FIELDS) if field in header} | dict(columns)
    there = ", ".join(header[:_SHOWN_COLUMNS]) + (", …" if len(header) > _SHOWN_COLUMNS else "")
    for column in found.values():
        if header.count(column) != 1:
            problem = "is there twice" if column in header else "is not there"
            raise UnreadableMember(f"the column {column!r} {problem}; its columns are: {there}")
    if "content" not in found:
        message = f"no column is `content`; say which one is: --column content=NAME, of: {there}"
        raise UnreadableMember(message)
    return found


def memories(
    rows: Iterable[tuple[Place, Mapping[str, Any]] | Flaw], fields: Mapping[str, str], options: ReadOptions
) -> Iterator[RawMemory | Flaw]:
    """Yield a memory or a flaw for each row, and flaws as they are.

    A cell that is empty counts as absent. A row without a uid gets one from its other fields, so that
    importing a table twice adds nothing; equal rows of one table are told apart by their order.

    Args:
        rows: each with its place, as a mapping of columns.
        fields: the column of each field.
        options: the time zone of dates that name none, and the namespace of rows that name none.

    """
    names = HashedNames()
    for row in rows:
        if isinstance(row, Flaw):
            yield row
            continue
        place, cells = row
        try:
            data = _fields(cells, fields, options)
            if "uid" not in data:
                data["uid"] = f"table:{names.name(_written(data))}"
            yield from_mapping(data, max_content_bytes=options.max_content_bytes)
        except InvalidMemory as error:
            yield Flaw(place=place, reason=str(error), text=str(dict(cells))[:1000])


def _fields(cells: Mapping[str, Any], fields: Mapping[str, str], options: ReadOptions) -> dict[str, Any]:
    data: dict[str, Any] = {"content": ""}
    metadata: dict[str, Any] = {}
    for field, column in fields.items():
        value = cells[column]
        if _is_absent(value):
            continue
        if field.startswith(_IN_METADATA):
            metadata[field.removeprefix(_IN_METADATA)] = _plain(value)
        elif field == "metadata":
            metadata = _object(value) | metadata
        elif field == "created_at":
            data[field] = _instant(value, options.time_zone)
        else:
            data[field] = _text(value) if field in _TEXTS else value
    if metadata:
        data["metadata"] = metadata
    if options.namespace is not None:
        data.setdefault("namespace", options.namespace)
    return data


def _is_absent(value: object) -> bool:
    is_nan = isinstance(value, float) and value != value  # noqa: PLR0124 (not a number is not itself)
    return value is None or is_nan or (isinstance(value, str) and not value.strip())


def _text(value: object) -> object:
    """Return a whole number as text, as ids often are; anything else is left to the memory's checks."""
    if isinstance(value, str):
        return clean(value).strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _object(value: object) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else _plain(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidMemory(field="metadata", value=value, allowed="a JSON object")
    return found


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it."""
    match value:
        case str():
            return clean(value)
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return value


def _instant(value: object, zone: tzinfo | None) -> object:
    """Return an instant: of a date, of ISO 8601 text, or of a number since 1970."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone or UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), zone or UTC)
    number = _number(value)
    if number is None:
        return from_iso(value, zone=zone) or value
    per_second = next((per for least, per in _PER_SECOND if abs(number) >= least), 1)
    return from_epoch(number / per_second) or value


def _number(value: object) -> Decimal | None:
    """Return a number, or that of a text with more digits than a date has."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    is_date = isinstance(value, str) and not _LONG_NUMBER.fullmatch(value.strip())
    return None if is_date else Decimal(str(value).strip())


def _written(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, sort_keys=True, default=str).encode(errors="surrogatepass")
