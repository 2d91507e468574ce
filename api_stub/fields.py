"""Fields as they travel over HTTP: refused by the rules of `memory.validation`, and described for OpenAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from memory.errors import InvalidMemory
from memory.models import MemoryType
from memory.validation import (
    MAX_CONTENT_BYTES,
    MAX_METADATA_KEYS,
    MAX_NAME_LENGTH,
    NAME_PATTERN,
    TEXT_PATTERN,
    check_instant,
    check_metadata,
    check_name,
    check_number,
    check_text,
)

T = TypeVar("T")


def _by(check: Callable[[T], object]) -> AfterValidator:
    """Return a validator that refuses what a check refuses, in its words, and changes nothing."""

    def checked(value: T) -> T:
        try:
            check(value)
        except InvalidMemory as error:
            allowed = {"allowed": error.allowed}
            raise PydanticCustomError("not_allowed", "must be {allowed}", allowed) from None
        return value

    return AfterValidator(checked)


def _check_text(value: str) -> None:
    check_text("text", value, max_bytes=MAX_CONTENT_BYTES)


def _check_name(value: str) -> None:
    check_name("name", value)


def _check_instant(value: str) -> None:
    check_instant("instant", value)


def _check_metadata(value: dict[str, Any]) -> None:
    check_metadata(value)
    if value.get("importance") is not None:
        check_number("metadata.importance", value["importance"], low=0, high=1)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[
    str, _by(_check_text), WithJsonSchema({"type": "string", "minLength": 1, "pattern": TEXT_PATTERN})
]
Name = Annotated[
    str,
    _by(_check_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": NAME_PATTERN}),
]
Instant = Annotated[str, _by(_check_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Metadata = Annotated[
    dict[str, Any],
    _by(_check_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_METADATA_KEYS,
            "propertyNames": {"pattern": r"^[^\x00]*$"},
            "properties": {
                "importance": {
                    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}],
                    "description": "How much it matters; 0.5 where absent.",
                }
            },
        }
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]
TypeName = Literal["episodic", "semantic", "reflection", "task", "preference", "response"]
TypeNames = Annotated[list[TypeName], Field(min_length=1, max_length=len(MemoryType), fail_fast=True)]
"""A list ends at its first fault: millions of faults, each described, would fill the memory."""
PageCursor = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,15}$")]
LARGEST_WHOLE = 2**53 - 1
"""As far as every JSON reader is exact; no database comes so far."""
WHOLE = BeforeValidator(_whole)
"""In JSON 5.0 is a whole number too. Stands behind the bounds, else OpenAPI does not show them."""
IdNumber = Annotated[int, Field(ge=1, le=LARGEST_WHOLE, examples=[1]), WHOLE]
