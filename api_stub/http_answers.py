"""What an answer of the HTTP API means to `HttpClient`: results, or one of our errors."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from memory.errors import (
    AccessDenied,
    CleanupBraked,
    InvalidMemory,
    MemorySystemError,
    NoReranker,
    NotFound,
    NothingAccepted,
    NotYetSearchable,
    QueueFull,
    SearchUnavailable,
    ServerAway,
    TooManyRequests,
)
from memory.models import Memory, MemoryId, MemoryState, Outcome, Related, Relation, Seq
from memory.store.memories import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx2

    from memory.models import Receipt


_PLACE = re.compile(r"memories\[(\d+)\]")
_SECONDS = re.compile(r"[0-9]{1,9}")
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading an answer raises where it is another one than the API's. No JSON at all is a ValueError."""
_PROBLEMS: dict[str, type[MemorySystemError]] = {
    "unauthorized": AccessDenied,
    "scope-missing": AccessDenied,
    "not-found": NotFound,
    "not-yet-searchable": NotYetSearchable,
    "cleanup-braked": CleanupBraked,
    "no-reranker": NoReranker,
    "search-unavailable": SearchUnavailable,
    "server-away": ServerAway,
}


def error_of(answer: httpx2.Response) -> MemorySystemError:
    """Return what a problem (RFC 9457) means here. Anything else is said by something before the API."""
    with suppress(*UNREADABLE):
        if answer.is_error:
            return _meaning_of(answer, answer.json())
    said = "without saying why"
    if answer.has_redirect_location:
        said = f"that it is at {answer.headers['location']!r}"
    return ServerAway(f"the API's place answered {answer.status_code} {said}")


def _meaning_of(answer: httpx2.Response, problem: Mapping[str, Any]) -> MemorySystemError:
    code, detail = text_of(problem["code"]), text_of(problem["detail"])
    if code == "too-many-requests":
        return TooManyRequests(detail, retry_after_s=_retry_after_s(answer))
    if code == "queue-full":
        return QueueFull(detail, retry_after_s=_retry_after_s(answer))
    if code in _PROBLEMS:
        return _PROBLEMS[code](detail)
    if answer.status_code in {400, 413, 422}:
        return _refusal_of(detail, problem.get("errors"))
    return ServerAway(f"the API answered {answer.status_code}: {detail}")


def _refusal_of(detail: str, errors: Sequence[Mapping[str, Any]] | None) -> MemorySystemError:
    """Return what was refused: memories by their places, or else what the first of the errors names."""
    told = [(text_of(one["field"]), text_of(one["allowed"])) for one in errors or ()]
    places = [_PLACE.fullmatch(field) for field, _ in told]
    if places and all(places):
        return NothingAccepted(
            {int(place[1]): allowed for place, (_, allowed) in zip(places, told, strict=True) if place}
        )
    field, allowed = told[0] if told else ("request", detail)
    error = InvalidMemory(field=field, value=None, allowed=allowed)
    error.args = (detail,)
    return error


def _retry_after_s(answer: httpx2.Response) -> float:
    given = answer.headers.get("retry-after", "")
    return float(given) if _SECONDS.fullmatch(given) else 1.0


class HandedOver(NamedTuple):
    """What became of a hand-over: what was refused, by its place, and in which namespace the rest is."""

    refused: Mapping[int, str]
    namespace: str = ""

    @classmethod
    def read(cls, answer: Mapping[str, Any], *, n_memories: int) -> HandedOver:
        """Read an answer. One that refuses what it was not handed is not to be believed."""
        refused = {one["position"]: text_of(one["reason"]) for one in answer["rejected"]}
        if not refused.keys() <= set(range(n_memories)):
            raise ValueError(refused)
        return cls(refused, text_of(answer["namespace"]))


def memories_of(answer: Mapping[str, Any]) -> list[Memory]:
    """Read the memories of an answer."""
    return [Memory.from_json(one) for one in answer["memories"]]


def related_of(answer: Mapping[str, Any]) -> list[Related]:
    """Read what is related to a memory."""
    return [Related(Memory.from_json(one), Relation.from_json(one["relation"])) for one in answer["related"]]


def counts_of(answer: Mapping[str, Any]) -> Counts:
    """Read how many memories are in each state."""
    return Counts(**{name: n for name, n in answer.items() if name != "namespace"})


def outcomes_of(receipts: Sequence[Receipt], answer: Mapping[str, Any]) -> list[Outcome]:
    """Read how far each of these receipts has come, in their order."""
    pairs = zip(receipts, answer["outcomes"], strict=True)
    return [_outcome(receipt, data) for receipt, data in pairs]


def _outcome(receipt: Receipt, data: Mapping[str, Any]) -> Outcome:
    return Outcome(
        receipt=receipt,
        state=MemoryState(data["state"]),
        id=None if data["id"] is None else MemoryId(data["id"]),
        seq=None if data["seq"] is None else Seq(data["seq"]),
        reason=data["reason"],
    )


def text_of(value: object) -> str:
    """Return a text that was answered."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value
