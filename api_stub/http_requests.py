"""What `HttpClient` sends: arguments, checked as everywhere, in the form of the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from json import dumps
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ingest.producer import Draft, Rejected, chunks, refusal, validated
from memory.cleanup import CleanupPolicy
from memory.errors import InvalidMemory
from memory.filters import check_where
from memory.messages import RawMemory, raw_memory
from memory.search_request import SearchOptions, search_request
from memory.validation import MAX_CONTENT_BYTES, check_id, check_name, check_text, check_types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memory.models import MemoryType


_CHUNK_BYTES = 2**20
"""With escapes, so much text makes a body that is far from the API's bound."""


@dataclass(frozen=True, slots=True)
class SentDraft:
    """A checked memory on its way, by its position in what was handed over."""

    position: int
    namespace: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, position: int, draft: Draft) -> SentDraft:
        """Return a checked memory. It has a uid from here on: it may be sent again."""
        raw = validated(draft, max_content_bytes=MAX_CONTENT_BYTES)
        is_silent = not isinstance(draft, RawMemory) and (
            isinstance(draft, str) or draft.get("namespace") is None
        )
        fields = {
            "content": raw.content,
            "memory_type": raw.memory_type.value,
            "source": raw.source,
            "metadata": raw.metadata,
            "uid": raw.uid,
            "created_at": raw.created_at.isoformat(),
        }
        return cls(position, None if is_silent else raw.namespace, fields)


def checked(drafts: Iterable[Draft], rejected: list[Rejected]) -> Iterator[SentDraft]:
    """Yield what is valid by the bounds that are the same everywhere; the API may know narrower ones."""
    for position, draft in enumerate(drafts):
        try:
            yield SentDraft.of(position, draft)
        except InvalidMemory as error:
            rejected.append(refusal(position, error))


def in_requests(drafts: Iterable[SentDraft]) -> Iterator[list[SentDraft]]:
    """Yield what fits into one request: of one namespace, far from the API's bound."""
    for _, some in groupby(drafts, key=lambda draft: draft.namespace):
        yield from chunks(some, text_of=lambda draft: dumps(draft.fields), max_bytes=_CHUNK_BYTES)


def search_body(query: str, min_seq: int | None, options: SearchOptions) -> dict[str, Any]:
    """Return the checked body of a search."""
    source = options.get("source")
    if isinstance(source, Iterator):  # it is checked, and then sent
        options["source"] = source = list(source)
    request = search_request(
        query, max_content_bytes=MAX_CONTENT_BYTES, min_seq=min_seq, options=_checkable(options)
    )
    body = {
        **{name: _plain(value) for name, value in options.items() if value is not None},
        "query": query,
        "min_seq": request.min_seq,
        "memory_types": type_names(request.memory_types),
        "mode": request.mode.value,
        "source": [source] if isinstance(source, str) else _plain(source),
    }
    return {name: value for name, value in body.items() if value is not None}


def _checkable(options: SearchOptions) -> SearchOptions:
    """Return what can be checked here: a cursor is of a namespace, and the key's own is known to the API."""
    if options.get("after") is None or "namespace" in options:
        return options
    check_text("after", options["after"], max_bytes=MAX_CONTENT_BYTES)
    others = options.copy()
    del others["after"]
    return others


def changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be changed of a memory, checked by the rules for a new one."""
    checked = raw_memory(**{"content": "as it is", **given}, max_content_bytes=MAX_CONTENT_BYTES)
    return {name: getattr(checked, name) for name in given}


def check_no_brake(policy: CleanupPolicy) -> None:
    """Raise InvalidMemory where a policy has another brake than the usual one: the server has its own."""
    usual = CleanupPolicy()
    for name in ("brake_share", "brake_count"):
        if (given := getattr(policy, name)) != getattr(usual, name):
            raise InvalidMemory(field=name, value=given, allowed="absent: the server's settings hold")


def type_names(values: Iterable[MemoryType | str] | MemoryType | str | None) -> list[str] | None:
    """Return the names of types, each once; `None` for all."""
    types = check_types(values)
    return None if types is None else [memory_type.value for memory_type in dict.fromkeys(types)]


def where_param(where: Mapping[str, Any]) -> str:
    """Return a checked filter as the JSON that stands in a URL."""
    check_where(where)
    return dumps(_plain(where))


def name_if_given(field: str, value: str | None) -> str | None:
    """Return a checked name; `None` where none is given."""
    return None if value is None else check_name(field, value)


def _plain(value: Any) -> Any:
    """Return what JSON can say of an option that was checked."""
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return {name: _plain(inner) for name, inner in value.items()}
        case str() | int() | float() | None:
            return value
        case Integral():  # one of numpy's
            return int(value)
    return [_plain(inner) for inner in value]


def memory_path(memory_id: int, part: str = "") -> str:
    """Return the path of a memory, or of a part of it."""
    path = f"/v1/memories/{check_id('memory_id', memory_id)}"
    return f"{path}/{part}" if part else path


def body_of(namespace: str | None, **fields: Any) -> dict[str, Any]:
    """Return the fields that are there."""
    given = {"namespace": namespace, **fields}
    return {name: value for name, value in given.items() if value is not None}
