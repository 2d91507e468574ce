"""The client that speaks to an HTTP API: `memory api`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from json import dumps
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit

import httpx2
from typing_extensions import override

from api_stub.client import MemoryClient
from ingest.producer import Draft, Enqueued, Rejected, chunks, refusal, validated
from memory.api_keys import ApiKey
from memory.cleanup import CleanupPolicy, CleanupReport
from memory.erasure import ErasureReceipt
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
    SettingsError,
    TooManyRequests,
)
from memory.logs import log_as_a_library
from memory.messages import RawMemory
from memory.models import (
    Memory,
    MemoryAssociation,
    MemoryId,
    MemoryState,
    MemoryType,
    Outcome,
    Receipt,
    Related,
    Relation,
    SearchHit,
    Seq,
)
from memory.search_request import SearchOptions, search_request
from memory.selector import selector
from memory.settings import read_settings
from memory.store.memories import Counts
from memory.validation import MAX_CONTENT_BYTES, check_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_CHUNK_BYTES = 2**20
"""With escapes, so much text makes a body that is far from the API's bound."""
_AT_ONCE = 1000
"""uids in one question"""
_LONGEST_WAIT_S = 30.0
_CONNECT_S, _ANSWER_S = 5.0, 30.0
_PLACE = re.compile(r"memories\[(\d+)\]")
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


class HttpClient(MemoryClient):
    """Talks to an HTTP API: accepted means that it has answered 202.

    Besides what the methods of `MemoryClient` raise, each raises:
        AccessDenied: the key is unknown, revoked, or may not do this.
        TooManyRequests: the key has made its requests of this minute; says when to ask again.
        ServerAway: the API cannot be reached, or gave no answer.

    Args:
        url: where it answers.
        key: what opens it; MEMORY_API_KEY where absent.

    Raises:
        SettingsError: the URL is none.

    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        log_as_a_library()
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise SettingsError("the API's URL must be http://host[:port] or https://host[:port]")
        key = key or read_settings().api_key
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
        )

    @override
    def close(self) -> None:
        self._http.close()

    @override
    def enqueue(
        self,
        content: str,
        *,
        memory_type: MemoryType | str = MemoryType.EPISODIC,
        source: str = "user",
        metadata: dict[str, Any] | None = None,
        uid: str | None = None,
        namespace: str | None = None,
        created_at: Any = None,
    ) -> Receipt:
        given = {
            "content": content,
            "memory_type": memory_type,
            "source": source,
            "metadata": metadata,
            "uid": uid,
            "namespace": namespace,
            "created_at": created_at,
        }
        draft = _Draft.of(0, given)  # it has a uid from here on: it may be sent again
        found = self._ask("POST", "/v1/memories", json=_body(namespace, memories=[draft.fields]))
        return Receipt(uid=draft.fields["uid"], namespace=found["namespace"])

    @override
    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float = 60) -> Enqueued:
        receipts: list[Receipt] = []
        rejected: list[Rejected] = []
        for chunk in _chunks(_checked(drafts, rejected)):
            body = _body(chunk[0].namespace, memories=[draft.fields for draft in chunk])
            answer = self._hand_over(body, patience_s=patience_s)
            refused = {one["position"]: one["reason"] for one in answer["rejected"]}
            for place, draft in enumerate(chunk):
                if place in refused:
                    told = refused[place]
                    rejected.append(Rejected(position=draft.position, reason=told, rule=told))
                else:
                    receipts.append(Receipt(uid=draft.fields["uid"], namespace=answer["namespace"]))
        rejected.sort(key=lambda one: one.position)
        return Enqueued(receipts=tuple(receipts), rejected=tuple(rejected))

    @override
    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        return self._outcomes(receipts, wait_s=0)

    @override
    def search(
        self,
        query: str,
        *,
        min_seq: int | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        search_request(query, max_content_bytes=MAX_CONTENT_BYTES, min_seq=min_seq, options=options)
        body = {name: _plain(value) for name, value in options.items() if value is not None}
        for name in ("memory_types", "source"):
            if isinstance(body.get(name), str):
                body[name] = [body[name]]
        if "mode" in body:
            body["mode"] = str(body["mode"]).lower()
        wait_s = None if timeout_s is None else min(timeout_s, _LONGEST_WAIT_S)
        given = {"query": query, "min_seq": min_seq, "wait_s": wait_s}
        body |= {name: value for name, value in given.items() if value is not None}
        return [SearchHit.from_json(hit) for hit in self._ask("POST", "/v1/search", json=body)["results"]]

    @override
    def get(self, memory_id: int, *, namespaces: Collection[str] | None = None) -> Memory:
        found = Memory.from_json(self._ask("GET", _path(memory_id)))
        if namespaces is not None and found.namespace not in namespaces:
            raise NotFound(f"no live memory with id {memory_id}")
        return found

    @override
    def get_by_uid(self, uid: str, *, namespace: str | None = None) -> Memory:
        found = self.list_memories(namespace=namespace, where={"uid": uid}, limit=1)
        if not found:
            raise NotFound(f"no live memory with uid {uid!r}")
        return found[0]

    @override
    def context(self, memory_id: int, *, before: int = 2, after: int = 2) -> list[Memory]:
        answer = self._ask("GET", _path(memory_id, "context"), params={"before": before, "after": after})
        return [Memory.from_json(memory) for memory in answer["memories"]]

    @override
    def update(
        self,
        memory_id: int,
        *,
        content: str | None = None,
        memory_type: MemoryType | str | None = None,
        source: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Receipt:
        given = {
            "content": content,
            "memory_type": None if memory_type is None else str(memory_type).lower(),
            "source": source,
            "metadata": metadata,
        }
        body = {name: value for name, value in given.items() if value is not None}
        answer = self._ask("PATCH", _path(memory_id), json=body)
        return Receipt(uid=answer["memories"][0]["uid"], namespace=answer["namespace"])

    @override
    def list_memories(
        self,
        *,
        namespace: str | None = None,
        memory_types: Iterable[MemoryType | str] | MemoryType | str | None = None,
        where: Mapping[str, Any] | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Memory]:
        types = [memory_types] if isinstance(memory_types, str) else _plain(memory_types)
        params = _body(
            namespace,
            memory_type=None if types is None else [str(one).lower() for one in types],
            where=None if where is None else dumps(_plain(where)),
            cursor=after,
            limit=limit,
        )
        return [Memory.from_json(one) for one in self._ask("GET", "/v1/memories", params=params)["memories"]]

    @override
    def associate(
        self,
        memory_id: int,
        related_memory_id: int,
        relationship_type: str,
        *,
        strength: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryAssociation:
        body = {
            "related_memory_id": related_memory_id,
            "relationship_type": relationship_type,
            "strength": strength,
            "metadata": dict(metadata or {}),
        }
        return MemoryAssociation.from_json(self._ask("POST", _path(memory_id, "associations"), json=body))

    @override
    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        path = _path(memory_id, f"associations/{check_id('related_memory_id', related_memory_id)}")
        params = {} if relationship_type is None else {"relationship_type": relationship_type}
        return int(self._ask("DELETE", path, params=params)["removed"])

    @override
    def related(
        self,
        memory_id: int,
        *,
        relationship_type: str | None = None,
        min_strength: float = 0.0,
        direction: str = "both",
        depth: int = 1,
    ) -> list[Related]:
        params = {"min_strength": min_strength, "direction": direction, "depth": depth}
        if relationship_type is not None:
            params["relationship_type"] = relationship_type
        answer = self._ask("GET", _path(memory_id, "related"), params=params)
        return [
            Related(Memory.from_json(one), Relation.from_json(one["relation"])) for one in answer["related"]
        ]

    @override
    def delete(self, memory_id: int) -> Seq:
        return Seq(self._ask("DELETE", _path(memory_id))["seq"])

    @override
    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        body = _body(
            policy.namespace,
            max_age_days=policy.max_age_days,
            min_importance=policy.min_importance,
            memory_types=None if policy.memory_types is None else list(policy.memory_types),
            dry_run=dry_run,
            force=force,
        )
        return CleanupReport(**self._ask("POST", "/v1/cleanup", json=body, timeout_s=600))

    def erase(
        self,
        *,
        namespace: str | None = None,
        source: str | None = None,
        ids: Iterable[int] | None = None,
        dry_run: bool = True,
        timeout_s: float = 600,
    ) -> ErasureReceipt:
        """Erase memories wherever they are, as `PipelineClient.erase` does; only in the key's namespaces."""
        chosen = selector(namespace=namespace, source=source, ids=ids)
        body = _body(chosen.namespace, source=chosen.source, ids=list(chosen.ids) or None, dry_run=dry_run)
        return ErasureReceipt.from_json(self._ask("POST", "/v1/erase", json=body, timeout_s=timeout_s))

    @override
    def counts(self, *, namespace: str | None = None) -> Counts:
        answer = self._ask("GET", "/v1/stats", params={} if namespace is None else {"namespace": namespace})
        del answer["namespace"]
        return Counts(**answer)

    def own_key(self) -> ApiKey:
        """Return what the API knows of this client's key: what it may do, and where."""
        return ApiKey.from_json(self._ask("GET", "/v1/key"))

    @override
    def _wait(self, receipts: list[Receipt], timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            found = self._outcomes(receipts, wait_s=max(0.0, min(left_s, _LONGEST_WAIT_S)))
            if left_s <= _LONGEST_WAIT_S or all(outcome.settled for outcome in found):
                return found

    def _outcomes(self, receipts: Sequence[Receipt], *, wait_s: float) -> list[Outcome]:
        deadline = time.monotonic() + wait_s
        found: list[Outcome] = []
        for namespace, some in groupby(receipts, key=lambda receipt: receipt.namespace):
            uids = [receipt.uid for receipt in some]
            for first in range(0, len(uids), _AT_ONCE):
                body = {
                    "namespace": namespace,
                    "uids": uids[first : first + _AT_ONCE],
                    "wait_s": max(0.0, deadline - time.monotonic()),
                }
                answer = self._ask("POST", "/v1/outcomes", json=body, timeout_s=wait_s + _ANSWER_S)
                found.extend(_outcome(one, namespace) for one in answer["outcomes"])
        return found

    def _hand_over(self, body: dict[str, Any], *, patience_s: float) -> dict[str, Any]:
        """Hand over again and again while there is no room. What is refused as a whole counts as rejected."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return self._ask("POST", "/v1/memories", json=body)
            except (QueueFull, TooManyRequests) as full:
                if time.monotonic() + full.retry_after_s > deadline:
                    raise
                time.sleep(full.retry_after_s)
            except NothingAccepted as error:
                refused = [{"position": n, "reason": reason} for n, reason in error.reasons.items()]
                return {"rejected": refused}
            except InvalidMemory as error:
                if len(body["memories"]) > 1:
                    raise  # it is not about one of them
                return {"rejected": [{"position": 0, "reason": str(error)}]}

    def _ask(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> dict[str, Any]:
        timeout = httpx2.Timeout(timeout_s, connect=_CONNECT_S)
        try:
            answer = self._http.request(method, path, json=json, params=params, timeout=timeout)
        except httpx2.RequestError as error:
            raise ServerAway(f"no answer of the API: {type(error).__name__}: {error}") from error
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            return found
        raise _error_of(answer)


def _error_of(answer: httpx2.Response) -> MemorySystemError:
    """Return what a problem (RFC 9457) means here."""
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):  # something else stands before the API
        return ServerAway(f"the API's place answered {answer.status_code} without saying why")
    if code == "too-many-requests":
        return TooManyRequests(detail, retry_after_s=_retry_after_s(answer))
    if code == "queue-full":
        return QueueFull(detail, retry_after_s=_retry_after_s(answer))
    if code in _PROBLEMS:
        return _PROBLEMS[code](detail)
    if answer.status_code in {400, 413, 422}:
        return _refusal_of(detail, problem.get("errors") or [{"field": "request", "allowed": detail}])
    return ServerAway(f"the API answered {answer.status_code}: {detail}")


def _refusal_of(detail: str, errors: Sequence[Mapping[str, str]]) -> MemorySystemError:
    places = [_PLACE.fullmatch(one["field"]) for one in errors]
    if all(places):
        reasons = zip(places, errors, strict=True)
        return NothingAccepted({int(place[1]): one["allowed"] for place, one in reasons if place})
    error = InvalidMemory(field=errors[0]["field"], value=None, allowed=errors[0]["allowed"])
    error.args = (detail,)
    return error


def _retry_after_s(answer: httpx2.Response) -> float:
    given = answer.headers.get("retry-after", "")
    return float(given) if given.isdigit() else 1.0


@dataclass(frozen=True, slots=True)
class _Draft:
    """A checked memory on its way, by its position in what was handed over."""

    position: int
    namespace: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, position: int, draft: Draft) -> _Draft:
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


def _checked(drafts: Iterable[Draft], rejected: list[Rejected]) -> Iterator[_Draft]:
    """Yield what is valid by the bounds that are the same everywhere; the API may know narrower ones."""
    for position, draft in enumerate(drafts):
        try:
            yield _Draft.of(position, draft)
        except InvalidMemory as error:
            rejected.append(refusal(position, error))


def _chunks(drafts: Iterable[_Draft]) -> Iterator[list[_Draft]]:
    """Yield what fits into one request: of one namespace, far from the API's bound."""
    for _, some in groupby(drafts, key=lambda draft: draft.namespace):
        yield from chunks(some, text_of=lambda draft: dumps(draft.fields), max_bytes=_CHUNK_BYTES)


def _outcome(data: Mapping[str, Any], namespace: str) -> Outcome:
    return Outcome(
        receipt=Receipt(uid=data["uid"], namespace=namespace),
        state=MemoryState(data["state"]),
        id=None if data["id"] is None else MemoryId(data["id"]),
        seq=None if data["seq"] is None else Seq(data["seq"]),
        reason=data["reason"],
    )


def _plain(value: Any) -> Any:
    """Return what JSON can say of an option."""
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return {name: _plain(inner) for name, inner in value.items()}
        case str() | int() | float() | None:
            return value
    return [_plain(inner) for inner in value]


def _path(memory_id: int, part: str = "") -> str:
    path = f"/v1/memories/{check_id('memory_id', memory_id)}"
    return f"{path}/{part}" if part else path


def _body(namespace: str | None, **fields: Any) -> dict[str, Any]:
    given = {"namespace": namespace, **fields}
    return {name: value for name, value in given.items() if value is not None}
