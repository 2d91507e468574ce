"""Checks on what people hand over: each names the field, the value and what is allowed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from numbers import Integral
from typing import Any

from dateutil import parser as dateutil_parser

from memory.errors import InvalidMemory
from memory.models import Direction, MemoryId, MemoryType, Metadata, Seq

MAX_CONTENT_BYTES = 1024 * 1024
"""No setting may allow more than this for one memory."""

MAX_NAME_LENGTH = 512
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 8
MAX_METADATA_KEYS = 128
MAX_LIMIT = 1000
MAX_CONTEXT = 100
MAX_HIT_CONTEXT = 10
_ASTRAL_MARKS = "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
_TAGS = "\U000e0001\U000e0020-\U000e007f"  # they could say what nobody sees
_UNSEEN = (
    r"\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\ufeff\ufff9-\ufffb"
) + f"{_ASTRAL_MARKS}{_TAGS}"
NAME_PATTERN = f"^[^ {_UNSEEN}]+(?: +[^ {_UNSEEN}]+)*$"
"""An identifier: no control or format character and no space but the plain one, which stands inside alone.

By the categories Cc, Cf, Zs, Zl and Zp of Unicode, not by what one version of it has assigned: else a name
that one Python takes would be refused by another.
"""
TEXT_PATTERN = (
    r"^[^\x00]*[^\x00\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\x00]*$"
)
"""Text that is not blank, without NUL."""
_NAME = re.compile(NAME_PATTERN[:-1] + r"\Z")
_LARGEST_INT = 2**63 - 1
_FEW_KEYS = 32
_LONGEST_NUMBER = 32  # in JSON, with what stands around a key and its value
_MOST_BYTES_A_CHARACTER = 6  # a control character is written as an escape
_TYPES = {memory_type.value: memory_type for memory_type in MemoryType}


def check_text(field: str, value: object, *, max_bytes: int) -> str:
    """Return non-blank text that every store can hold, at most `max_bytes` in UTF-8."""
    if not isinstance(value, str):
        raise InvalidMemory(field=field, value=value, allowed="text")
    if not value or value.isspace():
        raise InvalidMemory(field=field, value=value, allowed="text that is not blank")
    n_bytes = _check_characters(field, value)
    if n_bytes > max_bytes:
        raise InvalidMemory(field=field, value=value, allowed=f"at most {max_bytes} bytes, not {n_bytes}")
    return value


def check_name(field: str, value: object) -> str:
    """Return an identifier (`uid`, `namespace`, `source`): printable text of 1 to 512 characters."""
    # Nearly all are plain ASCII, and each memory has three.
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and value.isascii():  # noqa: SIM102
        if value.isprintable() and value == value.strip():
            return value
    text = check_text(field, value, max_bytes=4 * MAX_NAME_LENGTH)
    if len(text) > MAX_NAME_LENGTH or not _NAME.match(text):
        allowed = f"1 to {MAX_NAME_LENGTH} printable characters with no blank at either end"
        raise InvalidMemory(field=field, value=value, allowed=allowed)
    return text


def check_type(value: object) -> MemoryType:
    """Return the memory type named by `value`, in any case."""
    known = _TYPES.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise InvalidMemory(field="memory_type", value=value, allowed="one of " + ", ".join(MemoryType))
    return known


def check_types(values: object) -> tuple[MemoryType, ...] | None:
    """Return the types to search, `None` for all. One type, or a list of types; not an empty list."""
    if values is None:
        return None
    if isinstance(values, str):
        return (check_type(values),)
    if not isinstance(values, Iterable) or not (types := tuple(check_type(v) for v in values)):
        raise InvalidMemory(
            field="memory_types", value=values, allowed="a list of at least one type, or nothing"
        )
    return types


def check_number(field: str, value: object, *, low: float, high: float) -> float:
    """Return a finite number in `low`..`high`. A bool is not a number here."""
    allowed = f"a number in {low:g}..{high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidMemory(field=field, value=value, allowed=allowed)
    if not low <= value <= high:  # which no NaN is
        raise InvalidMemory(field=field, value=value, allowed=allowed)
    return float(value)


def check_whole(field: str, value: object, *, low: int, high: int) -> int:
    """Return a whole number in `low`..`high`, one of numpy's too. A bool is not a number here."""
    if not isinstance(value, bool) and isinstance(value, int | Integral) and low <= int(value) <= high:
        return int(value)
    raise InvalidMemory(field=field, value=value, allowed=f"a whole number in {low}..{high}")


def check_id(field: str, value: object) -> MemoryId:
    """Return a memory's number: a whole one from 1."""
    return MemoryId(check_whole(field, value, low=1, high=_LARGEST_INT))


def check_seq(field: str, value: object) -> Seq:
    """Return a write's number; 0 is before the first."""
    return Seq(check_whole(field, value, low=0, high=_LARGEST_INT))


def check_flag(field: str, value: object) -> bool:
    """Return a bool; nothing else counts as one."""
    if not isinstance(value, bool):
        raise InvalidMemory(field=field, value=value, allowed="true or false")
    return value


def check_limit(value: object) -> int:
    """Return how many answers are asked for, 1..1000."""
    return check_whole("limit", value, low=1, high=MAX_LIMIT)


def check_direction(value: object) -> Direction | None:
    """Return which way associations are walked, `None` for both ways."""
    match value:
        case "outgoing" | "incoming":
            return value
        case "both":
            return None
    raise InvalidMemory(field="direction", value=value, allowed="both, outgoing or incoming")


def check_metadata(value: object) -> Metadata:
    """Return a JSON object within the bounds of size, depth and number of keys; its own copy."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidMemory(field="metadata", value=value, allowed="a JSON object")
    if (plain := _plain_copy(value)) is not None:
        return plain
    n_keys = _check_json("metadata", value, depth=1)
    if n_keys > MAX_METADATA_KEYS:
        raise InvalidMemory(field="metadata", value=value, allowed=f"at most {MAX_METADATA_KEYS} keys in all")
    encoded = json.dumps(_as_dict(value), ensure_ascii=False, allow_nan=False)
    if (n_bytes := len(encoded.encode())) > MAX_METADATA_BYTES:
        allowed = f"at most {MAX_METADATA_BYTES} bytes of JSON, not {n_bytes}"
        raise InvalidMemory(field="metadata", value=value, allowed=allowed)
    copy: Metadata = json.loads(encoded)
    return copy


def check_instant(field: str, value: object) -> datetime:
    """Return an aware UTC instant from a datetime or an ISO 8601 text. One without a zone counts as UTC."""
    allowed = "an ISO 8601 date and time, such as 2025-03-04T18:12:09+00:00, of the years 1 to 9999"
    try:
        instant = value if isinstance(value, datetime) else _instant_of(_as_text(value))
        if instant.tzinfo is None:
            return instant.replace(tzinfo=UTC)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        raise InvalidMemory(field=field, value=value, allowed=allowed) from None


def _instant_of(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)  # ten times as fast, and knows the usual ways to write it
    except ValueError:
        return dateutil_parser.isoparse(text)


def _as_dict(value: Any) -> Any:
    """Return JSON's own types: the encoder knows no other mapping than a dict."""
    match value:
        case Mapping():
            return {k: _as_dict(v) for k, v in value.items()}
        case list() | tuple():
            return [_as_dict(v) for v in value]
    return value


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _plain_copy(value: Mapping[Any, Any]) -> Metadata | None:
    """Return a copy of what nearly all are, few short plain values; `None` for what needs a closer look."""
    if type(value) is not dict or len(value) > _FEW_KEYS:
        return None
    n_characters = 0
    for key, inner in value.items():
        if type(key) is not str or not _is_plain(key):
            return None
        kind = type(inner)
        if kind is str:
            if not _is_plain(inner):
                return None
            n_characters += len(inner)
        elif kind is int:
            if abs(inner) > _LARGEST_INT:
                return None
        elif not (inner is None or kind is bool or (kind is float and math.isfinite(inner))):
            return None
        n_characters += len(key) + _LONGEST_NUMBER
    return value.copy() if n_characters * _MOST_BYTES_A_CHARACTER <= MAX_METADATA_BYTES else None


def _is_plain(text: str) -> bool:
    """Whether a text holds nothing that no store can hold."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_characters(field: str, text: str) -> int:
    """Return how many bytes it takes in UTF-8."""
    if "\0" in text:
        raise InvalidMemory(field=field, value=text, allowed="text without NUL characters")
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        allowed = "text without lone surrogates (it was decoded wrongly)"
        raise InvalidMemory(field=field, value=text, allowed=allowed) from None


def _check_json(field: str, value: Any, *, depth: int) -> int:
    """Walk a JSON value; return how many keys it has."""
    if isinstance(value, Mapping | list | tuple) and depth > MAX_METADATA_DEPTH:
        raise InvalidMemory(field=field, value="…", allowed=f"nested at most {MAX_METADATA_DEPTH} deep")
    match value:
        case None | bool():
            return 0
        case str():
            _check_characters(field, value)
            return 0
        case int():
            if abs(value) > _LARGEST_INT:
                raise InvalidMemory(field=field, value="a huge number", allowed="a whole number of 64 bits")
            return 0
        case float():
            if not math.isfinite(value):
                raise InvalidMemory(field=field, value=value, allowed="a finite number")
            return 0
        case Mapping():
            return sum(_check_member(field, k, v, depth=depth) for k, v in value.items())
        case list() | tuple():
            return sum(_check_json(f"{field}[{i}]", v, depth=depth + 1) for i, v in enumerate(value))
        case _:
            allowed = "JSON: text, numbers, true, false, null, lists and objects"
            raise InvalidMemory(field=field, value=value, allowed=allowed)


def _check_member(field: str, key: object, value: Any, *, depth: int) -> int:
    if not isinstance(key, str):
        raise InvalidMemory(field=field, value=key, allowed="an object whose keys are text")
    _check_characters(f"{field} key", key)
    return 1 + _check_json(f"{field}.{key}"[:200], value, depth=depth + 1)
