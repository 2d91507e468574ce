"""A filter as SQL that means the same to both databases."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import (
    Text,
    and_,
    cast,
    collate,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from memory.filters import AllOf, AnyOf, Filter, Not, Op, Test
from memory.schema import memories

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement

    from memory.filters import Value

    Condition = ColumnElement[bool]

_COMPARE: dict[Op, Callable[[Any, Any], Any]] = {
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "memory_type": memories.c.type,
    "source": memories.c.source,
    "uid": memories.c.uid,
    "importance": memories.c.importance,
    "created_at": memories.c.created_at,
    "last_access_at": memories.c.last_access_at,
}


def condition(wanted: Filter, *, is_sqlite: bool) -> Condition:
    """Return the condition that a row of `memories` meets a filter: true or false, never NULL."""
    match wanted:
        case AllOf(parts):
            return and_(*(condition(part, is_sqlite=is_sqlite) for part in parts))
        case AnyOf(parts):
            return or_(*(condition(part, is_sqlite=is_sqlite) for part in parts))
        case Not(part):
            return not_(condition(part, is_sqlite=is_sqlite))
    known = _COLUMNS.get(wanted.field)
    found: _Field
    if known is not None:
        found = _Column(known, is_sqlite=is_sqlite)
    else:
        found = _SqliteMetadata(wanted.path) if is_sqlite else _PostgresMetadata(wanted.path)
    return _met(found, wanted)


class _Field(Protocol):
    """One field of a row, as SQL. Any answer may be NULL where there is no such value."""

    def is_there(self) -> Condition: ...
    def equals_any(self, values: Sequence[Value]) -> Condition: ...
    def compares(self, op: Op, value: Value) -> Condition: ...
    def contains(self, value: Value) -> Condition: ...


def _met(field: _Field, wanted: Test) -> Condition:
    values = wanted.value if isinstance(wanted.value, tuple) else (wanted.value,)
    match wanted.op:
        case Op.EXISTS:
            there = func.coalesce(field.is_there(), false())
            return there if wanted.value else not_(there)
        case Op.EQ | Op.IN:
            met = field.equals_any(values)
        case Op.NE:
            return not_(func.coalesce(field.equals_any(values), false()))
        case Op.CONTAINS:
            met = field.contains(values[0])
        case _:
            met = field.compares(wanted.op, values[0])
    return func.coalesce(met, false())


class _Column:
    """A column of its own. Texts are compared by code points, which is not what Postgres does by itself."""

    def __init__(self, known: ColumnElement[Any], *, is_sqlite: bool) -> None:
        self._known = known
        self._is_sqlite = is_sqlite

    def is_there(self) -> Condition:
        return self._known.is_not(None)

    def equals_any(self, values: Sequence[Value]) -> Condition:
        return self._known.in_(values)

    def compares(self, op: Op, value: Value) -> Condition:
        is_text = isinstance(value, str) and not self._is_sqlite
        found: Condition = _COMPARE[op](collate(self._known, "C") if is_text else self._known, value)
        return found

    def contains(self, value: Value) -> Condition:
        where = func.instr if self._is_sqlite else func.strpos
        found: Condition = where(self._known, value) > 0
        return found


class _PostgresMetadata:
    """A value in the metadata, as jsonb: numbers are compared by value, and nothing is cast that may fail."""

    def __init__(self, path: Sequence[str]) -> None:
        # Step by step: as one path, "0" would lead into a list.
        self._value: ColumnElement[Any] = cast(memories.c.metadata, JSONB)
        for key in path:
            self._value = self._value.op("->", return_type=JSONB())(literal(key, Text))
        self._kind = func.jsonb_typeof(self._value)
        self._text = self._value.op("#>>", return_type=Text())(literal_column("'{}'"))

    def is_there(self) -> Condition:
        return self._kind != "null"

    def equals_any(self, values: Sequence[Value]) -> Condition:
        return self._value.in_([literal(value, JSONB) for value in values])

    def compares(self, op: Op, value: Value) -> Condition:
        if isinstance(value, str):
            return and_(self._kind == "string", _COMPARE[op](collate(self._text, "C"), value))
        return and_(self._kind == "number", _COMPARE[op](self._value, literal(value, JSONB)))

    def contains(self, value: Value) -> Condition:
        in_list = and_(
            self._kind == "array", self._value.op("@>", is_comparison=True)(literal([value], JSONB))
        )
        if not isinstance(value, str):
            return in_list
        return or_(in_list, and_(self._kind == "string", func.strpos(self._text, value) > 0))


class _SqliteMetadata:
    """A value in the metadata, as JSON in text."""

    def __init__(self, path: Sequence[str]) -> None:
        # Escaped as the text is in which it is looked for: the oldest versions compare letter by letter.
        where = literal("$" + "".join(f".{json.dumps(key)}" for key in path), Text)
        text = cast(memories.c.metadata, Text)
        self._value: ColumnElement[Any] = func.json_extract(text, where)
        self._kind: ColumnElement[Any] = func.json_type(text, where)
        self._elements = func.json_each(text, where).table_valued(column("type", Text), column("atom"))

    def is_there(self) -> Condition:
        return self._kind != "null"

    def equals_any(self, values: Sequence[Value]) -> Condition:
        return _is_any(self._kind, self._value, values)

    def compares(self, op: Op, value: Value) -> Condition:
        kinds = ["text"] if isinstance(value, str) else ["integer", "real"]
        return and_(self._kind.in_(kinds), _COMPARE[op](self._value, value))

    def contains(self, value: Value) -> Condition:
        has = exists(select(true()).where(_is_any(self._elements.c.type, self._elements.c.atom, [value])))
        in_list = and_(self._kind == "array", has)
        if not isinstance(value, str):
            return in_list
        return or_(in_list, and_(self._kind == "text", func.instr(self._value, value) > 0))


def _is_any(kind: ColumnElement[Any], found: ColumnElement[Any], values: Sequence[Value]) -> Condition:
    """Return the condition that a JSON value of SQLite, of this kind, is one of these."""
    texts = [value for value in values if isinstance(value, str)]
    flags = ["true" if value else "false" for value in values if isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    met: list[Condition] = [kind.in_(flags)] if flags else []
    if texts:
        met.append(and_(kind == "text", found.in_(texts)))
    if numbers:
        met.append(and_(kind.in_(["integer", "real"]), found.in_(numbers)))
    return or_(*met)
