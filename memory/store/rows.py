"""How a row of `memories` becomes a `Memory` and back, and which rows count as live and as indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    BindParameter,
    Boolean,
    and_,
    bindparam,
    column,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from memory.models import Memory, MemoryId, MemoryType
from memory.schema import memories

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from sqlalchemy import ColumnElement, Dialect, Row, Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    from memory.messages import RawMemory

    Embeddings = Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32]
    """One for each memory: float32 (w, d), its windows, or (d,) where it is one; rows of length 1."""

T = TypeVar("T")

Key = tuple[str, str]
"""(namespace, uid)"""

_KEYS_AT_ONCE = 500  # SQLite bounds the variables of one statement

LIVE = memories.c.deleted_at.is_(None)

INDEXED = and_(LIVE, memories.c.status == "ready")
"""The rows that the index must hold, and no others."""

MEMORY_COLUMNS = (
    memories.c.id,
    memories.c.uid,
    memories.c.namespace,
    memories.c.content,
    memories.c.type,
    memories.c.source,
    memories.c.metadata,
    memories.c.importance,
    memories.c.created_at,
    memories.c.last_access_at,
    memories.c.version,
)


def memory_of(row: Row[*tuple[Any, ...]]) -> Memory:
    """Return the memory in a row of `MEMORY_COLUMNS`."""
    return Memory(
        id=MemoryId(row.id),
        uid=row.uid,
        namespace=row.namespace,
        content=row.content,
        memory_type=MemoryType(row.type),
        source=row.source,
        metadata=row.metadata or {},
        importance=row.importance,
        created_at=row.created_at,
        last_access_at=row.last_access_at,
        version=row.version,
    )


def raw_values(raw: RawMemory) -> dict[str, Any]:
    """Return the column values that a raw memory gives."""
    return {
        "namespace": raw.namespace,
        "uid": raw.uid,
        "content": raw.content,
        "type": raw.memory_type.value,
        "source": raw.source,
        "metadata": raw.metadata,
        "importance": raw.importance,
        "position": raw.position,
        "created_at": raw.created_at,
    }


class _JsonElements(FunctionElement[Any]):
    """The elements of a JSON list, as a table with one column, `value`."""

    name = "json_elements"
    inherit_cache = True


@compiles(_JsonElements, "postgresql")
def _of_postgres(element: _JsonElements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements({compiler.process(element.clauses, **options)})"


@compiles(_JsonElements, "sqlite")
def _of_sqlite(element: _JsonElements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


KEYS = bindparam("keys", type_=JSON)
"""Stands for keys in a statement that is made once and used often: making one takes longer than its answer.
Its value is a list of keys."""


def key_in(keys: Iterable[Key] | BindParameter[Any], table: Table = memories) -> ColumnElement[bool]:
    """Return the condition that a row of the table has one of these keys. Any number of them is one variable.

    As a list of pairs of variables, Postgres compares each row of a growing table with each of them.
    """
    given = keys if isinstance(keys, BindParameter) else literal(list(keys), JSON)
    listed = _JsonElements(given).table_valued(column("value", JSON))
    namespace, uid = (listed.c.value.op("->>")(literal_column(place)) for place in ("0", "1"))
    return tuple_(table.c.namespace, table.c.uid).in_(select(namespace, uid))


class _Ids(TypeDecorator[Any]):
    """A list of whole numbers as one variable, in the form that the database reads the quickest."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(BigInteger) if dialect.name == "postgresql" else JSON())


class _OneOf(FunctionElement[bool]):
    """Whether a column is one of the ids in a list."""

    name = "one_of"
    type = Boolean()
    inherit_cache = True


@compiles(_OneOf, "postgresql")
def _by_index(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    ids, wanted = (compiler.process(part, **options) for part in element.clauses)
    return f"{ids} = ANY ({wanted})"


@compiles(_OneOf, "sqlite")
def _by_list(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    ids, wanted = (compiler.process(part, **options) for part in element.clauses)
    return f"{ids} IN (SELECT value FROM json_each({wanted}))"  # noqa: S608 (both are compiled)


def one_of(ids: ColumnElement[int], wanted: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that an id is one of these. Any number of them is one variable.

    As a variable each, a thousand cost the driver more time than the database takes to find their rows.
    """
    return _OneOf(ids, literal(list(wanted), _Ids()))


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield runs of `values` that are short enough for the variables of one statement."""
    for start in range(0, len(values), _KEYS_AT_ONCE):
        yield values[start : start + _KEYS_AT_ONCE]
