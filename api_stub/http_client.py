"""The client that speaks to an HTTP API: `memory api`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx2
from typing_extensions import override

from api_stub.client import MemoryClient
from api_stub.http_answers import (
    UNREADABLE,
    HandedOver,
    counts_of,
    error_of,
    memories_of,
    outcomes_of,
    related_of,
    text_of,
)
from api_stub.http_requests import (
    SentDraft,
    body_of,
    changes,
    check_no_brake,
    checked,
    in_requests,
    memory_path,
    name_if_given,
    search_body,
    type_names,
    where_param,
)
from ingest.producer import Draft, Enqueued, Rejected
from memory.api_keys import ApiKey
from memory.cleanup import CleanupPolicy, CleanupReport
from memory.erasure import ErasureReceipt
from memory.errors import (
    InvalidMemory,
    MemorySystemError,
    NotFound,
    NothingAccepted,
    QueueFull,
    ServerAway,
    SettingsError,
    TooManyRequests,
)
from memory.logs import log_as_a_library
from memory.models import (
    Memory,
    MemoryAssociation,
    MemoryType,
    Outcome,
    Receipt,
    Related,
    SearchHit,
    Seq,
)
from memory.relations import MAX_DEPTH
from memory.search_request import SearchOptions
from memory.selector import selector
from memory.settings import read_settings
from memory.store.memories import Counts
from memory.validation import (
    MAX_CONTEXT,
    check_direction,
    check_flag,
    check_id,
    check_limit,
    check_metadata,
    check_name,
    check_number,
    check_whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

T = TypeVar("T")

_AT_ONCE = 1000
"""uids in one question"""
_LONGEST_WAIT_S = 30.0
_CONNECT_S, _ANSWER_S = 5.0, 30.0
_OLDEST_DAYS = 36_500


class HttpClient(MemoryClient):
    """Talks to an HTTP API: accepted means that it has answered 202.

    Besides what the methods of `MemoryClient` raise, each raises:
        AccessDenied: the key is unknown, revoked, or may not do this.
        TooManyRequests: the key has made its requests of this minute; says when to ask again.
        ServerAway: the API cannot be reached, gave no answer, or something else answered in its place.

    After ServerAway nobody knows whether what was handed over has been accepted. Where `enqueue` or
    `enqueue_many` is to be called again safely, give each memory a uid: one that is made here is another one
    at each call, and what was accepted already would be there twice.

    Args:
        url: where it answers.
        key: what opens it; MEMORY_API_KEY where absent.

    Raises:
        SettingsError: the URL or the key is none.

    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        log_as_a_library()
        if not _is_place(url):
            raise SettingsError("the API's URL must be http://host[:port] or https://host[:port]")
        key = key or read_settings().api_key
        if key and not (key.isascii() and key.isprintable()):
            raise SettingsError("the API's key must be one of `memory keys create`")
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
        draft = SentDraft.of(0, given)  # it has a uid from here on: it may be sent again
        return self._ask(
            "POST",
            "/v1/memories",
            lambda answer: Receipt(uid=draft.fields["uid"], namespace=text_of(answer["namespace"])),
            json=body_of(draft.namespace, memories=[draft.fields]),
        )

    @override
    def enqueue_many(self, drafts: Iterable[Draft], *, patience_s: float = 60) -> Enqueued:
        receipts: list[Receipt] = []
        rejected: list[Rejected] = []
        for chunk in in_requests(checked(drafts, rejected)):
            handed = self._hand_over(chunk, patience_s=patience_s)
            for place, draft in enumerate(chunk):
                if place in handed.refused:
                    told = handed.refused[place]
                    rejected.append(Rejected(position=draft.position, reason=told, rule=told))
                else:
                    receipts.append(Receipt(uid=draft.fields["uid"], namespace=handed.namespace))
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
        body = search_body(query, min_seq, options)
        if timeout_s:  # as everywhere, 0 is as none
            longest = check_number("timeout_s", timeout_s, low=0, high=math.inf)
            body["wait_s"] = min(longest, _LONGEST_WAIT_S)
        return self._ask(
            "POST",
            "/v1/search",
            lambda answer: [SearchHit.from_json(hit) for hit in answer["results"]],
            json=body,
            timeout_s=body.get("wait_s", 0.0) + _ANSWER_S,
        )

    @override
    def get(self, memory_id: int, *, namespaces: Collection[str] | None = None) -> Memory:
        found = self._ask("GET", memory_path(memory_id), Memory.from_json)
        if namespaces is not None and found.namespace not in namespaces:
            raise NotFound(f"no live memory with id {memory_id}")
        return found

    @override
    def get_by_uid(self, uid: str, *, namespace: str | None = None) -> Memory:
        found = self.list_memories(namespace=namespace, where={"uid": check_name("uid", uid)}, limit=1)
        if not found:
            raise NotFound(f"no live memory with uid {uid!r}")
        return found[0]

    @override
    def context(self, memory_id: int, *, before: int = 2, after: int = 2) -> list[Memory]:
        params = {
            "before": check_whole("before", before, low=0, high=MAX_CONTEXT),
            "after": check_whole("after", after, low=0, high=MAX_CONTEXT),
        }
        return self._ask("GET", memory_path(memory_id, "context"), memories_of, params=params)

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
            "memory_type": memory_type,
            "source": source,
            "metadata": metadata,
        }
        return self._ask(
            "PATCH",
            memory_path(memory_id),
            lambda answer: Receipt(
                uid=text_of(answer["memories"][0]["uid"]), namespace=text_of(answer["namespace"])
            ),
            json=changes({name: value for name, value in given.items() if value is not None}),
        )

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
        params = body_of(
            name_if_given("namespace", namespace),
            memory_type=type_names(memory_types),
            where=None if where is None else where_param(where),
            cursor=None if after is None else check_id("after", after),
            limit=check_limit(limit),
        )
        return self._ask("GET", "/v1/memories", memories_of, params=params)

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
        path = memory_path(memory_id, "associations")
        body = {
            "related_memory_id": check_id("related_memory_id", related_memory_id),
            "relationship_type": check_name("relationship_type", relationship_type),
            "strength": check_number("strength", strength, low=0, high=1),
            "metadata": check_metadata(metadata),
        }
        return self._ask("POST", path, MemoryAssociation.from_json, json=body)

    @override
    def dissociate(self, memory_id: int, related_memory_id: int, relationship_type: str | None = None) -> int:
        path = memory_path(memory_id, f"associations/{check_id('related_memory_id', related_memory_id)}")
        params = {"relationship_type": name_if_given("relationship_type", relationship_type)}
        return self._ask("DELETE", path, lambda answer: int(answer["removed"]), params=params)

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
        path = memory_path(memory_id, "related")
        params = {
            "relationship_type": name_if_given("relationship_type", relationship_type),
            "direction": check_direction(direction) or "both",
            "min_strength": check_number("min_strength", min_strength, low=0, high=1),
            "depth": check_whole("depth", depth, low=1, high=MAX_DEPTH),
        }
        return self._ask("GET", path, related_of, params=params)

    @override
    def delete(self, memory_id: int) -> Seq:
        return self._ask("DELETE", memory_path(memory_id), lambda answer: Seq(int(answer["seq"])))

    @override
    def cleanup(self, policy: CleanupPolicy, *, dry_run: bool = True, force: bool = False) -> CleanupReport:
        """Forget what is both old and unimportant, or with `dry_run` count it.

        The brake is the server's own, MEMORY_CLEANUP_BRAKE_SHARE and MEMORY_CLEANUP_BRAKE_COUNT: a policy
        cannot have another one. Without a namespace it is every one, with a key bound to namespaces the only
        one of the key.

        Raises:
            CleanupBraked: it would remove suspiciously much, and `force` is not set.
            InvalidMemory: the policy has a brake of its own, or another value that is not allowed.

        """
        check_no_brake(policy)
        body = body_of(
            name_if_given("namespace", policy.namespace),
            max_age_days=check_number("max_age_days", policy.max_age_days, low=0, high=_OLDEST_DAYS),
            min_importance=check_number("min_importance", policy.min_importance, low=0, high=1),
            memory_types=type_names(policy.memory_types),
            dry_run=check_flag("dry_run", dry_run),
            force=check_flag("force", force),
        )
        return self._ask(
            "POST", "/v1/cleanup", lambda answer: CleanupReport(**answer), json=body, timeout_s=600
        )

    def erase(
        self,
        *,
        namespace: str | None = None,
        source: str | None = None,
        ids: Iterable[int] | None = None,
        dry_run: bool = True,
        timeout_s: float = 600,
    ) -> ErasureReceipt:
        """Erase memories wherever they are, as `PipelineClient.erase` does; only in the key's namespaces.

        Args:
            namespace: all of it, or with `source` what it holds from there.
            source: all that came from there, exactly. Without a namespace it is every one, with a key bound
                to namespaces the only one of the key.
            ids: these, at most 1000, without a namespace and a source.
            dry_run: erase nothing.
            timeout_s: how long to wait for the answer. The erasure goes on without anybody waiting.

        Raises:
            InvalidMemory: nothing was chosen, or both ways at once.
            NotFound: the namespace or one of the ids is none of the key's.
            SearchUnavailable: the indexer gave no answer in time. Call again.
            ServerAway: the API, or what it needs, cannot be reached, or gave no answer in time. Call again.

        """
        chosen = selector(namespace=namespace, source=source, ids=ids)
        body = body_of(
            chosen.namespace,
            source=chosen.source,
            ids=list(chosen.ids) or None,
            dry_run=check_flag("dry_run", dry_run),
        )
        return self._ask("POST", "/v1/erase", ErasureReceipt.from_json, json=body, timeout_s=timeout_s)

    @override
    def counts(self, *, namespace: str | None = None) -> Counts:
        return self._ask(
            "GET", "/v1/stats", counts_of, params={"namespace": name_if_given("namespace", namespace)}
        )

    def own_key(self) -> ApiKey:
        """Return what the API knows of this client's key: what it may do, and where."""
        return self._ask("GET", "/v1/key", ApiKey.from_json)

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
        for namespace, group in groupby(receipts, key=lambda receipt: receipt.namespace):
            of_one = list(group)
            for first in range(0, len(of_one), _AT_ONCE):
                some = of_one[first : first + _AT_ONCE]
                body = {
                    "namespace": check_name("namespace", namespace),
                    "uids": [check_name("uid", receipt.uid) for receipt in some],
                    "wait_s": max(0.0, deadline - time.monotonic()),
                }
                read = partial(outcomes_of, some)
                found += self._ask("POST", "/v1/outcomes", read, json=body, timeout_s=wait_s + _ANSWER_S)
        return found

    def _hand_over(self, drafts: Sequence[SentDraft], *, patience_s: float) -> HandedOver:
        """Hand over again and again while there is no room. What is refused as a whole counts as rejected."""
        deadline = time.monotonic() + patience_s
        body = body_of(drafts[0].namespace, memories=[draft.fields for draft in drafts])
        read = partial(HandedOver.read, n_memories=len(drafts))
        while True:
            try:
                return self._ask("POST", "/v1/memories", read, json=body)
            except (QueueFull, TooManyRequests) as full:
                if time.monotonic() + full.retry_after_s > deadline:
                    raise
                time.sleep(full.retry_after_s)
            except NothingAccepted as error:
                if error.reasons.keys() != set(range(len(drafts))):
                    raise ServerAway("the API's place refused what was not handed over") from error
                return HandedOver(error.reasons)
            except InvalidMemory as error:
                if len(drafts) > 1:
                    raise  # it is not about one of them
                return HandedOver({0: str(error)})

    def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> T:
        """Return what `read` makes of the answer's JSON. What it cannot read is no answer of the API.

        Args:
            method: of HTTP.
            path: below the URL.
            read: may raise what is in `UNREADABLE`.
            json: the body.
            params: of the query; `None` is left out.
            timeout_s: how long to wait for a part of the answer.

        """
        try:
            answer = self._http.request(
                method,
                path,
                json=json,
                params={name: value for name, value in (params or {}).items() if value is not None},
                timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            )
        except httpx2.HTTPError as error:
            raise ServerAway(f"no answer of the API: {type(error).__name__}: {error}") from error
        except httpx2.InvalidURL as error:
            raise _too_long(params or {}, error) from error
        if not answer.is_success:
            raise error_of(answer)
        try:
            return read(answer.json())
        except UNREADABLE as error:
            message = f"the API's place answered {answer.status_code} with something else"
            raise ServerAway(f"{message}: {type(error).__name__}") from error


def _is_place(url: str) -> bool:
    """Whether a URL names a host, and what can be asked there has its place behind it."""
    try:
        httpx2.URL(url)
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):  # no address, or no port
        return False
    return is_one and not parts.username and not parts.query


def _too_long(params: Mapping[str, Any], error: httpx2.InvalidURL) -> MemorySystemError:
    """Return what is wrong with a URL: all that stands in one is short, but for `where`."""
    if params.get("where") is None:
        return ServerAway(f"no answer of the API: {type(error).__name__}: {error}")
    return InvalidMemory(field="where", value=params["where"], allowed="short enough to stand in a URL")
