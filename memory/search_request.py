"""What a search may be told: checked once for the client and the library, and how it travels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypedDict

from dateutil.parser import isoparse

from memory.boosts import DEFAULT_HALF_LIFE_DAYS, Boosts
from memory.errors import InvalidMemory
from memory.filters import MAX_VALUES, Filter, Op, Test, all_of, check_where, filter_of
from memory.messages import DEFAULT_NAMESPACE
from memory.models import MemoryType, SearchMode, Seq
from memory.paging import Cursor, read_cursor
from memory.reranker import RERANKED
from memory.time_words import read_time_words
from memory.validation import (
    MAX_HIT_CONTEXT,
    MAX_LIMIT,
    check_flag,
    check_instant,
    check_limit,
    check_name,
    check_number,
    check_seq,
    check_text,
    check_types,
    check_whole,
)

_MAX_TOKENS = 10_000_000
_LONGEST_HALF_LIFE_DAYS = 36_525


class FurtherOptions(TypedDict, total=False):
    """The options of a search that are always named. None is needed."""

    namespace: str
    """whose memories; `default` where absent"""
    mode: SearchMode | str
    """`hybrid` (where absent), `vector` or `words`: see `SearchMode`"""
    where: Mapping[str, Any] | None
    """only what meets these conditions: see `memory.filters.check_where`"""
    source: str | Iterable[str] | None
    """only from this source, or one of these"""
    since: datetime | str | None
    """only what was created at this instant or later"""
    until: datetime | str | None
    """only what was created before this instant"""
    read_times: bool
    """take `since` and `until` from the query's words, if it has any: see `memory.time_words`"""
    now: datetime | str | None
    """what `read_times` and ages are counted from; the current time where absent"""
    recency: float
    """how much it counts how new a memory is, 0..1, 0 where absent: see `memory.boosts`"""
    importance: float
    """how much its importance counts, likewise"""
    access: float
    """how much it counts how lately it was found, likewise"""
    half_life_days: float
    """of both ages; 30 where absent"""
    diversity: float
    """how unlike each other the results are to be, 0..1, 0 where absent: see `memory.diversity`"""
    distinct: bool
    """of memories of one type and author that say the same, only the best"""
    rerank: bool
    """let the model of MEMORY_RERANKER order the best 50; then `limit` is at most 50"""
    after: str | None
    """the cursor of the last hit of the page before; not with `diversity` or `rerank`"""
    max_tokens: int | None
    """only so many results as fit into a prompt of about this size: see `memory.prompt_text.fitting`"""
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
    boosts: Boosts
    mode: SearchMode = SearchMode.HYBRID
    where: Filter | None = None
    diversity: float = 0.0
    distinct: bool = False
    rerank: bool = False
    after: Cursor | None = None
    max_tokens: int | None = None
    explain: bool = False
    expand: int = 0
    context: int = 0

    @property
    def digest(self) -> str:
        """What all pages of one search share."""
        data = self.as_json()
        for name in ("limit", "min_seq", "after", "max_tokens", "explain", "expand", "context"):
            del data[name]
        del data["boosts"]["now"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping that `from_json` reads back."""
        where, boosts, after = self.where, asdict(self.boosts), self.after
        data = asdict(replace(self, where=None, after=None))
        data["boosts"] = {**boosts, "now": self.boosts.now.isoformat()}
        data["where"] = where.as_json() if where else None
        data["after"] = str(after) if after else None
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchRequest:
        """Read what `as_json` wrote."""
        types, boosts = data["memory_types"], data["boosts"]
        request = replace(
            cls(**data),
            memory_types=None if types is None else tuple(MemoryType(t) for t in types),
            mode=SearchMode(data["mode"]),
            boosts=Boosts(**{**boosts, "now": datetime.fromisoformat(boosts["now"])}),
            where=filter_of(data["where"]) if data["where"] else None,
            after=None,
        )
        return request.following(data["after"])

    def following(self, cursor: object) -> SearchRequest:
        """Return the request of the page behind a cursor; the same where there is none.

        Raises:
            InvalidMemory: it is another search's.

        """
        if cursor is None:
            return self
        if self.diversity or self.rerank:
            raise InvalidMemory(field="after", value=cursor, allowed="absent with diversity or rerank")
        after = read_cursor(cursor, digest=self.digest)
        return replace(self, after=after, boosts=replace(self.boosts, now=after.now))


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
    checked = check_text("query", query, max_bytes=max_content_bytes)
    now = _now(options.get("now"))
    rerank = check_flag("rerank", options.get("rerank", False))
    tokens = options.get("max_tokens")
    request = SearchRequest(
        query=checked,
        namespace=check_name("namespace", options.get("namespace", DEFAULT_NAMESPACE)),
        memory_types=check_types(options.get("memory_types")),
        limit=check_limit(options.get("limit", 5)),
        min_score=check_number("min_score", options.get("min_score", -1.0), low=-1, high=1),
        min_seq=None if min_seq is None else check_seq("min_seq", min_seq),
        mode=_check_mode(options.get("mode", SearchMode.HYBRID)),
        where=_filter(checked, options, now=now),
        boosts=Boosts(
            recency=_share("recency", options.get("recency", 0)),
            importance=_share("importance", options.get("importance", 0)),
            access=_share("access", options.get("access", 0)),
            half_life_days=check_number(
                "half_life_days",
                options.get("half_life_days", DEFAULT_HALF_LIFE_DAYS),
                low=1e-3,
                high=_LONGEST_HALF_LIFE_DAYS,
            ),
            now=now,
        ),
        diversity=_share("diversity", options.get("diversity", 0)),
        distinct=check_flag("distinct", options.get("distinct", False)),
        rerank=rerank,
        max_tokens=None if tokens is None else check_whole("max_tokens", tokens, low=1, high=_MAX_TOKENS),
        explain=check_flag("explain", options.get("explain", False)),
        expand=check_whole("expand", options.get("expand", 0), low=0, high=MAX_LIMIT),
        context=check_whole("context", options.get("context", 0), low=0, high=MAX_HIT_CONTEXT),
    )
    if rerank and request.limit > RERANKED:
        raise InvalidMemory(field="limit", value=request.limit, allowed=f"1..{RERANKED} with rerank")
    return request.following(options.get("after"))


def _filter(query: str, options: SearchOptions, *, now: datetime) -> Filter | None:
    """Return what `where`, `source`, `since` and `until` ask for together."""
    bounds = {
        name: None if (given := options.get(name)) is None else check_instant(name, given)
        for name in ("since", "until")
    }
    if check_flag("read_times", options.get("read_times", False)):
        if any(bounds.values()):
            raise InvalidMemory(field="read_times", value=True, allowed="false with since or until")
        if told := read_time_words(query, now=now):
            bounds = {"since": told.since, "until": told.until}
    since, until = bounds["since"], bounds["until"]
    if since and until and until <= since:
        raise InvalidMemory(
            field="until", value=until.isoformat(), allowed=f"after since, {since.isoformat()}"
        )
    where, sources = options.get("where"), options.get("source")
    return all_of(
        None if where is None else check_where(where),
        None if sources is None else Test(field="source", op=Op.IN, value=_sources(sources)),
        None if since is None else Test(field="created_at", op=Op.GTE, value=since),
        None if until is None else Test(field="created_at", op=Op.LT, value=until),
    )


def _sources(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (check_name("source", value),)
    names = tuple(check_name("source", one) for one in value) if isinstance(value, Iterable) else ()
    if not 0 < len(names) <= MAX_VALUES:
        raise InvalidMemory(field="source", value=value, allowed=f"a source, or a list of 1 to {MAX_VALUES}")
    return names


def _now(value: object) -> datetime:
    """Return an aware instant in the zone in which it was given; else the time here."""
    if value is None:
        return datetime.now().astimezone()
    instant = check_instant("now", value)
    given = value if isinstance(value, datetime) else isoparse(str(value))
    return instant.astimezone(given.tzinfo or UTC)


def _share(field: str, value: object) -> float:
    return check_number(field, value, low=0, high=1)


def _check_mode(value: object) -> SearchMode:
    known = {mode.value: mode for mode in SearchMode}
    if not isinstance(value, str) or value.lower() not in known:
        raise InvalidMemory(field="mode", value=value, allowed="one of " + ", ".join(known))
    return known[value.lower()]
