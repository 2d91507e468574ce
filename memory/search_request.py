"""What a search may be told: checked once for the client and the library, and how it travels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from memory.errors import InvalidMemory
from memory.messages import DEFAULT_NAMESPACE
from memory.models import MemoryType, SearchMode, Seq
from memory.validation import (
    MAX_HIT_CONTEXT,
    MAX_LIMIT,
    check_flag,
    check_limit,
    check_name,
    check_number,
    check_text,
    check_types,
    check_whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class FurtherOptions(TypedDict, total=False):
    """The options of a search that are always named. None is needed."""

    namespace: str
    """whose memories; `default` where absent"""
    mode: SearchMode | str
    """`hybrid` (where absent), `vector` or `words`: see `SearchMode`"""
    explain: bool
    """let the terms of each score come along"""
    expand: int
    """up to so many memories associated with a hit come along behind the hits, with `relation`; 0..1000"""
    context: int
    """so many messages before and after each hit in its conversation come with it; 0..10"""


class SearchOptions(FurtherOptions, total=False):
    """All options of a search. None is needed."""

    memory_types: Iterable[MemoryType | str] | MemoryType | str | None
    """only these types; all where absent"""
    limit: int
    """1..1000, 5 where absent: if so many memories match, so many come back"""
    min_score: float
    """-1..1: none below it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A search as it travels to the query task. Make one with `search_request`."""

    query: str
    namespace: str
    memory_types: tuple[MemoryType, ...] | None
    limit: int
    min_score: float
    min_seq: Seq | None
    mode: SearchMode = SearchMode.HYBRID
    explain: bool = False
    expand: int = 0
    context: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchRequest:
        """Read what `as_json` wrote."""
        types = data["memory_types"]
        return replace(
            cls(**data),
            memory_types=None if types is None else tuple(MemoryType(t) for t in types),
            mode=SearchMode(data["mode"]),
        )


def search_request(
    query: object,
    *,
    max_content_bytes: int,
    min_seq: int | None = None,
    options: SearchOptions,
) -> SearchRequest:
    """Return the checked request of a search.

    Raises:
        InvalidMemory: names what is not allowed, its value, and what is.

    """
    known = SearchOptions.__required_keys__ | SearchOptions.__optional_keys__
    for name in options:
        if name not in known:
            raise InvalidMemory(field="option", value=name, allowed="one of " + ", ".join(sorted(known)))
    return SearchRequest(
        query=check_text("query", query, max_bytes=max_content_bytes),
        namespace=check_name("namespace", options.get("namespace", DEFAULT_NAMESPACE)),
        memory_types=check_types(options.get("memory_types")),
        limit=check_limit(options.get("limit", 5)),
        min_score=check_number("min_score", options.get("min_score", -1.0), low=-1, high=1),
        min_seq=None if min_seq is None else Seq(min_seq),
        mode=_check_mode(options.get("mode", SearchMode.HYBRID)),
        explain=check_flag("explain", options.get("explain", False)),
        expand=check_whole("expand", options.get("expand", 0), low=0, high=MAX_LIMIT),
        context=check_whole("context", options.get("context", 0), low=0, high=MAX_HIT_CONTEXT),
    )


def _check_mode(value: object) -> SearchMode:
    known = {mode.value: mode for mode in SearchMode}
    if not isinstance(value, str) or value.lower() not in known:
        raise InvalidMemory(field="mode", value=value, allowed="one of " + ", ".join(known))
    return known[value.lower()]
