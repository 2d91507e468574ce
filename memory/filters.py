"""Filters of a search: conditions on a memory's fields and metadata, checked against what there is."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from memory.errors import InvalidMemory
from memory.validation import MAX_NAME_LENGTH, check_flag, check_instant, check_text, check_type

MAX_TESTS = 100
"""So many conditions a filter has at most."""

MAX_DEPTH = 8
"""So deep it may be nested, and so deep a path may lead into metadata."""

MAX_VALUES = 1000
"""So many values all its conditions have together at most."""

_LARGEST_WHOLE = 2**53  # up to this a whole number is the same to every database
_ROOT = "metadata."
_MAX_TEXT_BYTES = 4 * MAX_NAME_LENGTH


class Op(StrEnum):
    """What may be asked of a field."""

    EQ = "eq"
    NE = "ne"
    IN = "in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    EXISTS = "exists"
    CONTAINS = "contains"


_EQUALITY = {Op.EQ, Op.NE, Op.IN}
_ORDER = {Op.GT, Op.GTE, Op.LT, Op.LTE}
_ALLOWED: dict[str, set[Op]] = {
    "memory_type": _EQUALITY,
    "source": {*_EQUALITY, *_ORDER, Op.CONTAINS},
    "uid": {*_EQUALITY, *_ORDER, Op.CONTAINS},
    "importance": {*_EQUALITY, *_ORDER, Op.EXISTS},
    "created_at": {*_EQUALITY, *_ORDER},
    "last_access_at": {*_EQUALITY, *_ORDER, Op.EXISTS},
}

Value = str | float | bool | datetime
Scalar = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One condition on one field. What is missing, or of another kind than the value, does not meet it."""

    field: str  # one of `_ALLOWED`, or "metadata."
    path: tuple[str, ...] = ()  # into the metadata, from its root
    op: Op
    value: Scalar

    def as_json(self) -> dict[str, Any]:
        """Return the mapping that `check_where` reads back."""
        return {self.field + ".".join(self.path): {self.op.value: _plain(self.value)}}


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of the parts is met."""

    parts: tuple[Filter, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the mapping that `check_where` reads back."""
        return {"and": [part.as_json() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the parts is met, or several."""

    parts: tuple[Filter, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the mapping that `check_where` reads back."""
        return {"or": [part.as_json() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class Not:
    """The part is not met."""

    part: Filter

    def as_json(self) -> dict[str, Any]:
        """Return the mapping that `check_where` reads back."""
        return {"not": self.part.as_json()}


Filter = Test | AllOf | AnyOf | Not


def check_where(value: object) -> Filter:
    """Return the filter that a mapping describes.

    Each key is a field with the value that it must have, or with a mapping of operators, or `and`, `or`
    (each with a list of such mappings) or `not` (with one). All keys of a mapping must be met. The fields
    are `memory_type`, `source`, `uid`, `importance`, `created_at`, `last_access_at`, and `metadata.` with a
    path of keys, a dot between them.

        {"source": "chat:42", "importance": {"gte": 0.5}, "metadata.author": {"in": ["Ines", "Rui"]}}
        {"or": [{"metadata.tags": {"contains": "home"}}, {"not": {"metadata.done": True}}]}

    Operators: `eq`, `ne` (not `eq`), `in` (a list), `gt`, `gte`, `lt`, `lte`, `exists` (true or false; null
    is nothing), `contains` (a list has this element, a text this part). Numbers are compared by value, texts
    by code points, true and false are no numbers. What is missing, or of another kind, meets none of them.

    Raises:
        InvalidMemory: names the place in the filter, what is there, and what is allowed.

    """
    return _filter("where", value, levels=MAX_DEPTH, room=_Room())


def all_of(*filters: Filter | None) -> Filter | None:
    """Return the filter that all of these make together; `None` is none."""
    there = tuple(f for f in filters if f is not None)
    if len(there) < 2:
        return there[0] if there else None
    return AllOf(there)


def filter_of(data: object) -> Filter:
    """Read what `as_json` wrote: as `check_where`, of any size."""
    return _filter("where", data, levels=sys.maxsize, room=_Room(sys.maxsize, sys.maxsize))


@dataclass(slots=True)
class _Room:
    """How much more a filter may hold: counted before it is read, so that an endless one costs little."""

    tests: int = MAX_TESTS
    values: int = MAX_VALUES

    def take(self, *, tests: int = 0, values: int = 0) -> None:
        self.tests -= tests
        self.values -= values
        if self.tests < 0 or self.values < 0:
            allowed = f"at most {MAX_TESTS} conditions with {MAX_VALUES} values in all"
            raise InvalidMemory(field="where", value="…", allowed=allowed)


def _filter(place: str, value: object, *, levels: int, room: _Room) -> Filter:
    if not isinstance(value, Mapping) or not value:
        raise InvalidMemory(field=place, value=value, allowed="a mapping of at least one field")
    if not levels:
        raise InvalidMemory(field=place, value="…", allowed=f"nested at most {MAX_DEPTH} deep")
    parts: list[Filter] = []
    for key, inner in value.items():
        at = f"{place}.{key}"[:200]
        if key in {"and", "or"}:
            if not isinstance(inner, list | tuple) or not inner:
                raise InvalidMemory(field=at, value=inner, allowed="a list of at least one mapping")
            found = tuple(
                _filter(f"{at}[{n}]", part, levels=levels - 1, room=room) for n, part in enumerate(inner)
            )
            parts.append(AllOf(found) if key == "and" else AnyOf(found))
        elif key == "not":
            parts.append(Not(_filter(at, inner, levels=levels - 1, room=room)))
        else:
            parts += _tests(place, at, key, inner, room=room)
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _tests(place: str, at: str, key: object, value: object, *, room: _Room) -> list[Test]:
    field, path = _field(place, key)
    allowed = _ALLOWED.get(field, set(Op))
    if not isinstance(value, Mapping):
        value = {Op.EQ.value: value}
    if not value:
        raise InvalidMemory(field=at, value=value, allowed="a value, or a mapping of at least one operator")
    room.take(tests=len(value))
    tests = []
    for name, operand in value.items():
        if name not in {op.value for op in allowed}:
            names = ", ".join(op.value for op in Op if op in allowed)
            raise InvalidMemory(field=at, value=name, allowed=f"a value, or a mapping of: {names}")
        op = Op(name)
        n = len(operand) if op is Op.IN and isinstance(operand, Sized) else 1
        room.take(values=n)
        found = _operand(f"{at}.{name}", field, op, operand)
        if isinstance(found, tuple):
            room.take(values=len(found) - n)  # of a generator
        tests.append(Test(field=field, path=path, op=op, value=found))
    return tests


def _field(place: str, key: object) -> tuple[str, tuple[str, ...]]:
    if isinstance(key, str) and key in _ALLOWED:
        return key, ()
    if not isinstance(key, str) or not key.startswith(_ROOT):
        fields = ", ".join([*_ALLOWED, f"{_ROOT}KEY", "and", "or", "not"])
        raise InvalidMemory(field=place, value=key, allowed=f"any of: {fields}")
    path = tuple(check_text(place, part, max_bytes=_MAX_TEXT_BYTES) for part in key[len(_ROOT) :].split("."))
    for part in path:
        if not part.isprintable() or '"' in part or "\\" in part:
            allowed = "keys of printable characters without quotation marks and backslashes"
            raise InvalidMemory(field=place, value=key, allowed=allowed)
    if len(path) > MAX_DEPTH:
        raise InvalidMemory(field=place, value=key, allowed=f"a path of at most {MAX_DEPTH} keys")
    return _ROOT, path


def _operand(at: str, field: str, op: Op, value: object) -> Scalar:
    if op is Op.EXISTS:
        return check_flag(at, value)
    if op is not Op.IN:
        return _value(at, field, op, value)
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise InvalidMemory(field=at, value=value, allowed="a list of values")
    values = tuple(_value(f"{at}[{n}]", field, op, one) for n, one in enumerate(value))
    if not values:
        raise InvalidMemory(field=at, value=value, allowed="a list of at least one value")
    return values


def _value(at: str, field: str, op: Op, value: object) -> Value:
    if check := _CHECKS.get(field):
        return check(at, value)
    if isinstance(value, bool) and op not in _ORDER:
        return value
    if isinstance(value, str):
        return _text(at, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(at, value)
    kinds = "text or a number" if op in _ORDER else "text, a number, true or false"
    raise InvalidMemory(field=at, value=value, allowed=kinds)


def _text(at: str, value: object) -> str:
    if value == "":
        return ""
    if isinstance(value, str) and value.isspace() and "\0" not in value:
        return value
    return check_text(at, value, max_bytes=_MAX_TEXT_BYTES)


def _number(at: str, value: object) -> float:
    allowed = f"a finite number, a whole one in -{_LARGEST_WHOLE}..{_LARGEST_WHOLE}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidMemory(field=at, value=value, allowed=allowed)
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
        raise InvalidMemory(field=at, value="a huge number", allowed=allowed)
    if not math.isfinite(value):
        raise InvalidMemory(field=at, value=value, allowed=allowed)
    return value


def _plain(value: Scalar) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


_CHECKS: dict[str, Callable[[str, object], Value]] = {
    "memory_type": lambda _at, value: check_type(value).value,
    "source": _text,
    "uid": _text,
    "importance": lambda at, value: float(_number(at, value)),
    "created_at": check_instant,
    "last_access_at": check_instant,
}
