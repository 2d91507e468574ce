"""No request by a key of one namespace shows a byte of another one, or tells what is in it."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import unquote_plus

import httpx2
import pytest
import uuid_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doors.api import api, new_key
from tests.pipeline.stack import Stack
from tests.waiting import wait_until

N = 12
"""memories of each namespace"""

FIRST = datetime(2025, 3, 4, 18, tzinfo=UTC)
NOW = "2026-01-01T00:00:00+00:00"
"""of every search: what is counted from the time of the request is never the same twice"""

TYPES = ["episodic", "semantic", "reflection", "task", "preference", "response"]
TEXTS = [
    "Inês is allergic to hazelnuts",
    "Did the vet see to the cat?",
    "The boat is called Maré, and the harbour is small",
    "Rui planted tomatoes behind the house",
    "A letter from the bank lies on the piano",
    "The kayak trip was called off: the wind was too strong",
]
AUTHORS = ["Inês", "Rui", "Bruno"]
QUERIES = ["what must Inês not eat?", "the boat in the harbour", "letter piano", "who is Bruno"]
AFTER = 2
"""The first so many queries have a cursor."""

MCP = {"Accept": "application/json, text/event-stream"}
WAIT = {"Prefer": "wait=30"}

Names = dict[str, int | str]
"""what stands for each placeholder"""


# What is asked: requests with placeholders. `<id:3>`, `<uid:3>`, `<namespace>` and so on are the other's, or
# in a second resolution nobody's. `<own:3>` is the asker's, and `<twin:3>` too: a memory that it made under
# the names of the other, or of nobody.


@dataclass(frozen=True)
class Template:
    """A request with placeholders."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def numbered(name: str, *numbers: int) -> st.SearchStrategy[str]:
    return st.sampled_from([f"<{name}:{n}>" for n in numbers])


def asks(method: str, path: st.SearchStrategy[str] | str, **parts: Any) -> st.SearchStrategy[Template]:
    where = st.just(path) if isinstance(path, str) else path
    return st.builds(Template, st.just(method), where, **parts)


def some(needed: Mapping[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with all that is needed, and some of what is optional."""
    return st.fixed_dictionaries(dict(needed or {}), optional=optional)


def calls(tool: str, arguments: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Template]:
    def call(given: dict[str, Any]) -> Template:
        return rpc("tools/call", name=tool, arguments=given)

    return arguments.map(call)


def rpc(method: str, **params: Any) -> Template:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return Template("POST", "/mcp", json=body, headers=MCP)


theirs, own, twins = numbered("id", *range(N)), numbered("own", *range(6)), numbered("twin", *range(6))
anyone = theirs | theirs | own | twins
uids = numbered("uid", *range(N))
namespaces = st.sampled_from(["<namespace>", "<mine>"])
sources = st.sampled_from(["<source:0>", "<source:1>", "chat"])
types = st.sampled_from(TYPES)
type_lists = st.lists(types, min_size=1, max_size=3, unique=True)
limits = st.sampled_from([1, 2, 5, 50])
strengths = st.sampled_from([0.0, 0.25, 0.5, 1.0])
contents = st.sampled_from(TEXTS).map("{} <own-secret>".format)
operations = numbered("operation", *range(6)) | st.just("<own-operation>")

# What is written under a uid or a source of the other's is written under one of nobody's too, and so is one
# more pair of twins, which are to answer alike: one at a time, so that nothing gets between the two; each in
# a conversation of such ones or in none; and such ones alone are changed.
drafts = some(
    {
        "content": contents,
        "source": st.just("<source:0>"),
        "created_at": st.integers(0, 3 * N).map(lambda n: (FIRST + timedelta(minutes=20 * n)).isoformat()),
    },
    memory_type=types,
    uid=numbered("uid", *range(8)),
    metadata=some(position=st.integers(0, 3 * N), author=st.just("Inês <own-secret>")),
) | some({"content": contents, "created_at": st.just(FIRST.isoformat())}, uid=numbered("uid", *range(8)))

tests = (
    st.builds(lambda uid: {"uid": uid}, uids)
    | st.builds(lambda some_: {"uid": {"in": some_}}, st.lists(uids, min_size=1, max_size=4))
    | st.builds(lambda source: {"source": source}, sources)
    | st.builds(lambda type_: {"memory_type": type_}, types)
    | st.builds(lambda n: {"metadata.position": {"gte": n}}, st.integers(0, N))
    | st.just({"metadata.author": {"contains": "Inês"}})
    | st.just({"importance": {"exists": True}})
)
wheres = (
    tests
    | tests.map(lambda test: {"not": test})
    | st.lists(tests, min_size=2, max_size=3).map(lambda several: {"or": several})
    | st.lists(tests, min_size=2, max_size=2).map(lambda several: {"and": several})
)

searches = some(
    {"query": st.sampled_from(QUERIES), "now": st.just(NOW)},
    namespace=namespaces,
    memory_types=type_lists,
    limit=limits,
    min_score=st.sampled_from([0.1, 0.4]),
    mode=st.sampled_from(["hybrid", "vector", "words"]),
    where=wheres,
    source=st.lists(sources, min_size=1, max_size=2, unique=True),
    since=st.just(FIRST.isoformat()),
    recency=strengths,
    importance=strengths,
    diversity=st.sampled_from([0.3, 1.0]),
    distinct=st.booleans(),
    max_tokens=st.sampled_from([10, 200]),
    explain=st.just(True),
    expand=st.integers(1, 20),
    context=st.integers(1, 10),
    min_seq=st.integers(0, 3),
) | st.integers(0, AFTER - 1).flatmap(
    lambda n: some(
        {"query": st.just(QUERIES[n]), "now": st.just(NOW), "after": st.just(f"<after:{n}>")},
        namespace=namespaces,
        limit=limits,
        explain=st.just(True),
        expand=st.integers(1, 20),
    )
)


@st.composite
def walks(draw: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """Where a walk along associations begins, and how it goes.

    From one of two twins it goes along the links of one type: along the others it comes to its own twin.
    """
    begin = draw(anyone)
    asked = draw(
        some(
            {"depth": st.integers(1, 10)},
            relationship_type=numbered("type", 0, 1),
            min_strength=strengths,
        )
    )
    return begin, asked | ({"relationship_type": "<type:0>"} if begin.startswith("<twin") else {})


@st.composite
def links(draw: Callable[..., Any], *, removed: bool = False) -> tuple[str, str, dict[str, Any]]:
    """Both ends of an association, and what it is: what comes about is of the type that is there twice."""
    ends = draw(anyone), draw(anyone)
    fails = any(end.startswith("<id") for end in ends)
    type_ = draw(numbered("type", 0, 1)) if fails else "<type:0>"
    if removed:
        return *ends, draw(some(relationship_type=st.just(type_))) if fails else {"relationship_type": type_}
    return *ends, draw(some({"relationship_type": st.just(type_)}, strength=strengths))


changes = some(memory_type=types, content=contents, metadata=some(position=st.integers(0, N), seen=types))
of_theirs = some(
    source=sources, content=contents, memory_type=types, metadata=some(**{"<own-secret>": types})
)
changed = (
    st.tuples(theirs, of_theirs)
    | st.tuples(theirs, changes)
    | st.tuples(numbered("twin", *range(6)), changes)
).filter(lambda one: one[1])
deleted = theirs | theirs | numbered("twin", 4, 5)
"""What is deleted of the twins leaves a tombstone under the other's uid."""

cleanups = some(
    {"max_age_days": st.sampled_from([0, 36_500]), "min_importance": strengths},
    memory_types=type_lists,
)
erasures = (
    some({"namespace": st.just("<namespace>")}, source=sources, dry_run=st.booleans())
    | some({"namespace": st.just("<mine>")}, source=sources)
    | some({"source": sources})
    | some({"ids": st.lists(theirs, min_size=1, max_size=3, unique=True)}, dry_run=st.booleans())
    | some({"ids": st.lists(anyone, min_size=1, max_size=4, unique=True)})
)
created = (
    some({"memories": drafts.map(lambda draft: [draft])}, namespace=st.just("<mine>"))
    | some({"memories": st.lists(drafts, min_size=1, max_size=3), "namespace": st.just("<namespace>")})
    | some({"memories": st.lists(some({"content": contents}), min_size=2, max_size=3)})
)
asked_after = some({"uids": st.lists(uids, min_size=1, max_size=6)}, namespace=namespaces)
pages = some(
    limit=limits, cursor=st.just("<cursor>"), namespace=namespaces, memory_type=type_lists, where=wheres
)


def _as_text(page: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if name == "where" else value for name, value in page.items()}


def _around(path: str, ids: st.SearchStrategy[str] = anyone) -> st.SearchStrategy[str]:
    return ids.map(path.format)


ENDPOINTS: dict[str, st.SearchStrategy[Template]] = {
    "GET /v1/memories/{memory_id}": asks("GET", _around("/v1/memories/{}")),
    "GET /v1/memories/{memory_id}/context": asks(
        "GET",
        _around("/v1/memories/{}/context"),
        params=some(before=st.integers(0, 20), after=st.integers(0, 20)),
    ),
    "GET /v1/memories/{memory_id}/related": st.builds(
        lambda walk, direction: Template(
            "GET", f"/v1/memories/{walk[0]}/related", {**walk[1], "direction": direction}
        ),
        walks(),
        st.sampled_from(["outgoing", "incoming", "both"]),
    ),
    "PATCH /v1/memories/{memory_id}": changed.map(
        lambda one: Template("PATCH", f"/v1/memories/{one[0]}", json=one[1], headers=WAIT)
    ),
    "DELETE /v1/memories/{memory_id}": asks("DELETE", _around("/v1/memories/{}", deleted)),
    "POST /v1/memories/{memory_id}/associations": links().map(
        lambda link: Template(
            "POST", f"/v1/memories/{link[0]}/associations", json={"related_memory_id": link[1], **link[2]}
        )
    ),
    "DELETE /v1/memories/{memory_id}/associations/{related_memory_id}": links(removed=True).map(
        lambda link: Template("DELETE", f"/v1/memories/{link[0]}/associations/{link[1]}", link[2])
    ),
    "GET /v1/memories": asks("GET", "/v1/memories", params=pages.map(_as_text)),
    "POST /v1/memories": asks(
        "POST",
        "/v1/memories",
        json=created,
        headers=some({"Prefer": st.just("wait=30")}, **{"Idempotency-Key": numbered("key", *range(6))}),
    ),
    "GET /v1/operations/{operation_id}": asks("GET", operations.map("/v1/operations/{}".format)),
    "GET /v1/operations/{operation_id}/events": asks(
        "GET", operations.map("/v1/operations/{}/events".format)
    ),
    "POST /v1/search": asks("POST", "/v1/search", json=searches),
    "POST /v1/outcomes": asks("POST", "/v1/outcomes", json=asked_after),
    "POST /v1/cleanup": asks(
        "POST",
        "/v1/cleanup",
        json=st.tuples(
            cleanups, some(namespace=st.just("<mine>")) | st.just({"namespace": "<namespace>"})
        ).map(lambda parts: parts[0] | parts[1])
        | cleanups.map(lambda one: one | {"namespace": "<namespace>", "dry_run": False, "force": True}),
    ),
    "POST /v1/erase": asks("POST", "/v1/erase", json=erasures),
    "GET /v1/stats": asks("GET", "/v1/stats", params=some(namespace=namespaces)),
    "GET /v1/key": asks("GET", "/v1/key"),
    "GET /metrics": asks("GET", "/metrics"),
}
TOOLS: dict[str, st.SearchStrategy[Template]] = {
    "add_memory": calls(
        "add_memory",
        st.builds(dict.__or__, drafts, some({"wait_s": st.just(30)}, namespace=namespaces)),
    ),
    "add_memories": calls("add_memories", created.map(lambda given: given | {"wait_s": 30})),
    "search_memories": calls(
        "search_memories",
        some(
            {"query": st.sampled_from(QUERIES)},
            limit=limits,
            memory_types=type_lists,
            source=st.lists(sources, min_size=1, max_size=2, unique=True),
            where=wheres,
            context=st.integers(1, 10),
            namespace=namespaces,
        ),
    ),
    "get_memory": calls("get_memory", some({"memory_id": anyone})),
    "list_memories": calls(
        "list_memories",
        some(
            limit=limits,
            cursor=st.just("<cursor>"),
            memory_types=type_lists,
            where=wheres,
            namespace=namespaces,
        ),
    ),
    "update_memory": calls(
        "update_memory",
        changed.map(lambda one: {"memory_id": one[0], **one[1], "wait_s": 30}).filter(
            lambda one: "source" not in one
        ),
    ),
    "delete_memory": calls("delete_memory", some({"memory_id": deleted})),
    "add_association": calls(
        "add_association",
        links().map(lambda link: {"memory_id": link[0], "related_memory_id": link[1], **link[2]}),
    ),
    "get_related_memories": calls(
        "get_related_memories", walks().map(lambda walk: {"memory_id": walk[0], **walk[1]})
    ),
    "get_operation_status": calls("get_operation_status", some({"operation_id": operations})),
    "memory_stats": calls("memory_stats", some(namespace=namespaces)),
    "preview_cleanup": calls("preview_cleanup", st.builds(dict.__or__, cleanups, some(namespace=namespaces))),
}
RESOURCES = anyone.map(lambda one: rpc("resources/read", uri=f"memory://{one}"))
KINDS = {**ENDPOINTS, **TOOLS, "resources/read": RESOURCES}
EXAMPLES = dict.fromkeys(KINDS, 10) | {"POST /v1/search": 30, "GET /v1/memories": 20}
"""of each kind in each round; of some there are not so many"""

ROUNDS = 2
"""The second one comes upon what the first one has written."""

_PLACEHOLDER = re.compile(r"<([a-z]+(?:-[a-z]+)?(?::\d+)?)>")


def resolved(value: Any, names: Mapping[str, int | str]) -> Any:
    """Put in what stands for the placeholders; an id alone becomes a number."""
    match value:
        case str() if whole := _PLACEHOLDER.fullmatch(value):
            return names[whole[1]]
        case str():
            return _PLACEHOLDER.sub(lambda found: str(names[found[1]]), value)
        case dict():
            return {resolved(name, names): resolved(inner, names) for name, inner in value.items()}
        case list():
            return [resolved(inner, names) for inner in value]
    return value


# Who asks, and whom it is about.


def new_names() -> Names:
    """Names that nobody has, all of one shape."""
    return {
        "namespace": f"house {secrets.token_hex(6)}",
        **{f"uid:{n}": f"uid-{secrets.token_hex(6)}-{n}" for n in range(N)},
        **{f"source:{n}": f"chat:{secrets.token_hex(6)}" for n in range(2)},
        **{f"type:{n}": f"to_{secrets.token_hex(6)}" for n in range(2)},
        **{f"key:{n}": f"key-{secrets.token_hex(6)}" for n in range(6)},
        **{f"operation:{n}": str(uuid_utils.uuid7()) for n in range(6)},
        **{f"id:{n}": 2**52 + secrets.randbelow(2**40) for n in range(N)},
    }


WRITTEN = {"source:0", "type:0", *(f"uid:{n}" for n in range(8))}
"""The other's names that a namespace itself writes down, and so may read again."""


@dataclass
class Side:
    """A namespace with its key, its names, which others may guess, and a secret, which is in all it holds."""

    client: httpx2.Client
    names: Names
    secret: str
    nobodys: Names = field(default_factory=new_names)
    twins: tuple[Names, Names] = field(default_factory=lambda: ({}, {}))
    """of the other, of nobody"""

    def ask(self, template: Template, **names: int | str) -> httpx2.Response:
        return send(self.client, template, {**self.own, **names})

    def post(self, path: str, body: Any, **headers: str) -> dict[str, Any]:
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def create(self, *given: dict[str, Any], **headers: str) -> dict[str, Any]:
        operation = self.post("/v1/memories", {"memories": given}, **WAIT, **headers)
        assert operation["status"] == "succeeded", operation
        return operation

    def list(self, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(
            "/v1/memories", params={"limit": 1000, **params}
        ).json()["memories"]
        return found

    @property
    def own(self) -> Names:
        """What stands for the placeholders of whoever asks."""
        return {
            **{f"own:{n}": self.names[f"id:{n}"] for n in range(6)},
            "mine": self.names["namespace"],
            "own-operation": self.names["operation:0"],
            "own-secret": self.secret,
        }

    @property
    def ids(self) -> set[int]:
        return {int(value) for name, value in self.names.items() if name.startswith("id:")}


def send(client: httpx2.Client, template: Template, names: Mapping[str, int | str]) -> httpx2.Response:
    method, path, headers = (
        resolved(part, names) for part in (template.method, template.path, dict(template.headers))
    )
    body = {} if template.json is None else {"json": resolved(template.json, names)}
    return client.request(
        method, path, params=resolved(dict(template.params), names), headers=headers, **body
    )


def remember(side: Side, begin: int, end: int, *, key: int) -> None:
    """Let it have some of its memories, with its secret in all of them."""
    given = [
        {
            "content": f"{TEXTS[n % len(TEXTS)]} {side.secret}",
            "memory_type": TYPES[n % len(TYPES)],
            "source": side.names[f"source:{n % 3 % 2}"],
            "uid": side.names[f"uid:{n}"],
            "created_at": (FIRST + timedelta(hours=n)).isoformat(),
            "metadata": {
                "author": f"{AUTHORS[n % 3]} {side.secret}",
                f"key {side.secret}": {side.secret: [side.secret]},
                **({"position": 2 * n} if n % 4 else {"importance": n / N}),
            },
        }
        for n in range(begin, end)
    ]
    operation = side.create(*given, **{"Idempotency-Key": str(side.names[f"key:{key}"])})
    for n, memory in enumerate(operation["memories"], start=begin):
        side.names[f"id:{n}"] = memory["id"]
    side.names[f"operation:{key}"] = operation["id"]


def hang_together(side: Side) -> None:
    """Let it have associations, further operations, and the cursors of two searches."""
    for n, (one, another) in enumerate([(0, 1), (1, 2), (2, 3), (0, 6), (6, 7), (8, 0), (3, 9)]):
        link = {
            "related_memory_id": side.names[f"id:{another}"],
            "relationship_type": side.names[f"type:{n % 2}"],
            "strength": 1 - n / 10,
            "metadata": {side.secret: side.secret},
        }
        side.post(f"/v1/memories/{side.names[f'id:{one}']}/associations", link)
    for n in range(2, 6):
        again = {"content": f"{TEXTS[n]} {side.secret}", "uid": side.names[f"uid:{n}"]}
        operation = side.create(again, **{"Idempotency-Key": str(side.names[f"key:{n}"])})
        side.names[f"operation:{n}"] = operation["id"]
    for n in range(AFTER):
        hit = side.post("/v1/search", {"query": QUERIES[n], "now": NOW})["results"][1]
        cursor = base64.urlsafe_b64decode(hit["cursor"] + "==")
        score, memory_id, rank, _, now = json.loads(cursor)
        unknown = [score, memory_id, rank, secrets.token_hex(8), now]
        side.names[f"after:{n}"] = hit["cursor"]
        side.nobodys[f"after:{n}"] = (
            base64.urlsafe_b64encode(json.dumps(unknown).encode()).decode().rstrip("=")
        )


def take_on(side: Side, other: Side) -> None:
    """Let it have twins: memories under the names of the other, and the same under nobody's, in turn."""
    for n in range(6):
        for names, made in zip((other.names, other.nobodys), side.twins, strict=True):
            twin = {
                "content": f"{TEXTS[n]} {side.secret}",
                "memory_type": TYPES[n],
                "source": names["source:0"],
                "uid": names[f"uid:{n}"],
                "created_at": (FIRST + timedelta(hours=n, minutes=30)).isoformat(),
                "metadata": {"position": 2 * n + 1, "author": f"Inês {side.secret}"},
            }
            [memory] = side.create(twin)["memories"]
            made[f"twin:{n}"] = memory["id"]
    for one, another in (("own:0", "own:1"), ("own:1", "twin:0"), ("twin:0", "twin:1"), ("twin:1", "own:2")):
        for names, made in zip((other.names, other.nobodys), side.twins, strict=True):
            ids = {**side.own, **made}
            link = {"related_memory_id": ids[another], "relationship_type": names["type:0"], "strength": 0.9}
            side.post(f"/v1/memories/{ids[one]}/associations", link)


def settle(side: Side) -> None:
    """Let a search find everything, until that is noted: it is noted once an hour."""
    found = side.post("/v1/search", {"query": "x", "limit": 1000})["results"]
    assert len(found) == len(side.list())
    wait_until(
        lambda: all(memory["last_access_at"] for memory in side.list()),
        timeout_s=30,
        why="it is noted what was found",
    )


def everything(side: Side) -> dict[str, Any]:
    """All that a namespace is asked, and what it answers, to the byte."""
    search = {"query": QUERIES[0], "now": NOW, "limit": 1000, "explain": True}
    forgotten = {"max_age_days": 0, "min_importance": 1}
    answers = {
        "list": side.client.get("/v1/memories", params={"limit": 1000}),
        "search": side.client.post("/v1/search", json=search),
        "cleanup": side.client.post("/v1/cleanup", json=forgotten),
        **{path: side.client.get(path) for path in ("/v1/stats", "/v1/key")},
        **{
            path: side.client.get(path)
            for memory_id in sorted(side.ids)
            for path in (f"/v1/memories/{memory_id}", f"/v1/memories/{memory_id}/related")
        },
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    operations_ = [
        side.ask(Template("GET", f"/v1/operations/{side.names[f'operation:{n}']}")) for n in range(6)
    ]
    return {
        **{name: answer.text for name, answer in answers.items()},
        # Events are pruned some day, and their numbers with them.
        "operations": [without(answer.json(), "seq") for answer in operations_],
        "erase": side.post("/v1/erase", {"namespace": side.names["namespace"]})["remaining"],
    }


def without(value: Any, *names: str) -> Any:
    match value:
        case dict():
            return {name: without(inner, *names) for name, inner in value.items() if name not in names}
        case list():
            return [without(inner, *names) for inner in value]
    return value


def rounded(value: Any) -> Any:
    """Return an answer with its numbers to six digits, and without cursors, which hold a score.

    The last bit (3e-8) of the cosine of a memory with several windows hangs on how many rows of the index
    were multiplied at once: BLAS adds up in another order.
    """
    match value:
        case dict():
            return {name: rounded(inner) for name, inner in value.items() if name != "cursor"}
        case list():
            return [rounded(inner) for inner in value]
        case float():
            return round(value, 6)
    return value


@pytest.fixture(scope="module")
def sides(stack: Stack, url: str) -> Iterator[tuple[Side, Side]]:
    """Two namespaces, each of which has taken the other's names into its own."""
    with ExitStack() as closing:

        def side() -> Side:
            names = new_names()
            key = new_key(
                stack, str(names["namespace"]), scopes="read write admin", requests_a_minute=1_000_000
            )
            return Side(closing.enter_context(api(url, key)), names, f"s{secrets.token_hex(8)}")

        one, two, third = side(), side(), side()

        def id_of_nobody() -> str:
            """An id like any other, which no memory has any more."""
            [gone] = third.create({"content": "a kite"})["memories"]
            third.client.delete(f"/v1/memories/{gone['id']}")
            return str(gone["id"])

        # A cursor is an id. Nobody's comes right after the other's, with none of the asker's in between.
        remember(one, 0, 6, key=0)
        remember(two, 0, 6, key=0)
        two.names["cursor"], two.nobodys["cursor"] = str(two.names["id:5"]), id_of_nobody()
        remember(one, 6, N, key=1)
        one.names["cursor"], one.nobodys["cursor"] = str(one.names["id:11"]), id_of_nobody()
        remember(two, 6, N, key=1)
        for each, other in ((one, two), (two, one)):
            hang_together(each)
            take_on(each, other)
        yield one, two


# What came back.

_ID_NAMES = {"id", "ids", "memory_id", "related_memory_id", "path"}
_VOLATILE = {"last_access_at", "seq", "rerank_ms", "at", "streams"}
"""What differs between any two equal requests: when, and which number a write got in the whole database."""

_SHOWN = 78
"""An error quotes so many characters of a long value."""


@dataclass
class Attack:
    """One namespace's requests about another: each is made twice, about it and about one that nobody has."""

    attacker: Side
    other: Side
    n: int = 0
    statuses: set[int] = field(default_factory=set)
    made: dict[int | str, str] = field(default_factory=dict)
    """the ids and uids of what it made: each time two, which are one to a comparison"""

    def __post_init__(self) -> None:
        theirs_, nobodys = self.attacker.twins
        self.resolutions: list[Names] = [
            {**self.attacker.own, **self.other.names, **theirs_},
            {**self.attacker.own, **self.other.nobodys, **nobodys},
        ]
        self.made |= {int(i): f"<{name}>" for twins_ in (theirs_, nobodys) for name, i in twins_.items()}
        self.placeholders: dict[str, str] = {}
        known = chain(self.other.names.items(), self.other.nobodys.items(), theirs_.items(), nobodys.items())
        for name, value in known:
            if name != "cursor":  # an id
                self.placeholders |= dict.fromkeys((str(value), str(value)[:_SHOWN]), f"<{name}>")
        longest_first = sorted(self.placeholders, key=len, reverse=True)
        self._known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
        self._hidden = {
            str(value)
            for name, value in self.other.names.items()
            if name not in WRITTEN and isinstance(value, str) and name != "cursor"
        }

    def make(self, template: Template) -> None:
        """Make a request twice. Nothing of the other's may be in either answer, and they must be the same."""
        answers = [send(self.attacker.client, template, names) for names in self.resolutions]
        told = [parsed(answer) for answer in answers]
        for answer, tells in zip(answers, told, strict=True):
            shown = self.of_the_other(answer, tells)
            assert not shown, f"{template} shows {shown}: {answer.text}"
        self._pair(*(operation_in(tells) for tells in told))
        there, nowhere = (
            {
                "status": answer.status_code,
                "headers": self.plain_headers(answer),
                "body": self.plain(tells),
            }
            for answer, tells in zip(answers, told, strict=True)
        )
        assert there == nowhere, f"{template} tells that it is there: {answers[0].text} / {answers[1].text}"
        self.n += 1
        self.statuses.add(answers[0].status_code)
        self._let_it_be_indexed(told)

    def of_the_other(self, answer: httpx2.Response, tells: Any) -> list[str]:
        """Return what an answer has of the other's secret and names, but for names in the request."""
        request = answer.request
        sent = " ".join(
            [
                unquote_plus(str(request.url)),
                request.headers.get("idempotency-key", ""),
                request.content.decode(),
            ]
        )
        text = f"{answer.text} {answer.headers}"
        ids = self.other.ids - {int(number) for number in re.findall(r"\d+", sent)}
        return [
            *(name for name in {self.other.secret, *self._hidden} if name in text and name not in sent),
            *(f"id {one}" for one in ids & set(ids_in(tells))),
        ]

    def plain(self, value: Any, name: str = "") -> Any:
        """Return an answer with placeholders for what was put in, without what is never the same twice."""
        match value:
            case dict():
                dropped = _VOLATILE | _new_parts(value)
                return {n: self.plain(inner, n) for n, inner in value.items() if n not in dropped}
            case list():
                return [self.plain(inner, name) for inner in value]
            case str() if name in {
                "cursor",
                "next",
                "next_cursor",
            }:  # of a list, an id; of a search, unreadable
                return self.made.get(int(value), value) if value.isdigit() else "<cursor>"
            case str():
                return self.made.get(value) or self._known.sub(lambda m: self.placeholders[m[0]], value)
            case int() if name in _ID_NAMES and not isinstance(value, bool):
                return self.made.get(value, value)
        return round(value, 6) if isinstance(value, float) else value  # see `rounded`

    def plain_headers(self, answer: httpx2.Response) -> dict[str, Any]:
        left_out = {"date", "content-length", *({"location"} if answer.is_success else ())}
        return {name: self.plain(value) for name, value in answer.headers.items() if name not in left_out}

    def _pair(self, one: dict[str, Any] | None, another: dict[str, Any] | None) -> None:
        """Note that what two operations are about are twins."""
        if one is None or another is None:
            return
        for ours, nobodys in zip(one["memories"], another["memories"], strict=True):
            for name in ("id", "uid"):
                pair = {ours[name], nobodys[name]}
                if len(pair) == 2 and not pair & {*self.made, *self.placeholders}:
                    self.made |= dict.fromkeys(pair, f"<made {name}:{len(self.made)}>")

    def _let_it_be_indexed(self, told: list[Any]) -> None:
        """Wait until no search knows any more what was deleted."""
        for tells in told:
            gone = _structured(tells)
            if isinstance(gone, dict) and "seq" in gone and "counts" not in gone and "id" in gone:
                body = {"query": "x", "mode": "words", "min_seq": gone["seq"], "wait_s": 30}
                self.attacker.post("/v1/search", body)


def parsed(answer: httpx2.Response) -> Any:
    """Return the body of an answer as values; JSON inside its texts too."""
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        lines = answer.text.splitlines()
        return [json.loads(line[6:]) if line.startswith("data: ") else line for line in lines]
    return _read(answer.json())


def _read(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: _json_of(inner) if name == "text" else _read(inner) for name, inner in value.items()
            }
        case list():
            return [_read(inner) for inner in value]
    return value


def _json_of(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def _structured(tells: Any) -> Any:
    """Return what a tool gave back, or an endpoint."""
    if isinstance(tells, dict) and "jsonrpc" in tells:
        return tells.get("result", {}).get("structuredContent")
    return tells


def operation_in(tells: Any) -> dict[str, Any] | None:
    found = _structured(tells)
    return found if isinstance(found, dict) and {"counts", "memories"} <= found.keys() else None


def _new_parts(value: dict[str, Any]) -> set[str]:
    """Return what is always new in an operation or an association that was just made."""
    is_made = {"counts", "memories"} <= value.keys() or {"memory_id", "created_at"} <= value.keys()
    return {"id", "created_at"} if is_made else set()


def ids_in(value: Any, name: str = "") -> Iterator[int]:
    """Yield every id in an answer, and every number in what is said in words."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from ids_in(inner, key)
        case list():
            for inner in value:
                yield from ids_in(inner, name)
        case int() if name in _ID_NAMES:
            yield value
        case str() if name in {
            "detail",
            "allowed",
            "message",
            "text",
            "reason",
            "uri",
            "next",
            "next_cursor",
        }:
            named = r"(?:\bid |\bids? = |memory://|memories/|^)(\d+)(?![\w.])"  # other numbers are bounds
            yield from (int(number) for number in re.findall(named, value))


@pytest.mark.parametrize("turn", [slice(None), slice(None, None, -1)], ids=["one of two", "two of one"])
def test_generated_requests_see_no_byte_of_another_namespace_and_cannot_tell_what_is_in_it(
    sides: tuple[Side, Side], turn: slice
) -> None:
    attacker, other = sides[turn]
    for side in sides:
        settle(side)
    before, own_before = everything(other), {memory["id"] for memory in attacker.list()}
    attack = Attack(attacker, other)

    for kind in [*KINDS] * ROUNDS:

        @settings(max_examples=EXAMPLES[kind], database=None)
        @given(KINDS[kind])
        def asked(template: Template) -> None:
            attack.make(template)

        asked()
    assert attack.n >= 500
    assert attack.statuses >= {200, 201, 202, 403, 404, 422}  # neither all of them failed nor none
    assert everything(other) == before
    gone = own_before - {memory["id"] for memory in attacker.list()}
    assert gone <= {made[f"twin:{n}"] for made in attacker.twins for n in (4, 5)}


def test_every_endpoint_and_every_tool_is_asked(sides: tuple[Side, Side]) -> None:
    client = sides[0].client
    paths = client.get("/openapi.json").json()["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert there - {"GET /healthz", "GET /readyz"} == ENDPOINTS.keys()
    tools = sides[0].ask(rpc("tools/list")).json()["result"]["tools"]
    assert {tool["name"] for tool in tools} == TOOLS.keys()


def test_what_another_namespace_takes_on_changes_no_score_and_no_count(sides: tuple[Side, Side]) -> None:
    side, other = sides
    queries = [
        *QUERIES,
        "Inês",
        "did Rui plant anything behind the house?",
        "wind strong kayak",
        "hazelnuts hazelnuts bank",
        "Bruno and the cat",
        "xylophone",
    ]
    asked = [
        {"query": query, "mode": mode, "limit": 500, "explain": True, "context": 1, "expand": 5, "now": NOW}
        for query in queries
        for mode in ("hybrid", "words", "vector")
    ]
    long = " ".join(TEXTS * 5)  # of several windows
    side.create({"content": f"{long} {long} {side.secret}", "metadata": {"position": 1}})
    settle(side)
    found = [rounded(side.post("/v1/search", body)) for body in asked]
    told = everything(side)
    assert all(
        of_one["results"] for of_one, body in zip(found, asked, strict=True) if body["mode"] != "words"
    )
    others = [
        {
            "content": long if n % 6 == 0 else f"{queries[n % len(queries)]}. {TEXTS[n % len(TEXTS)]}",
            "source": side.names[f"source:{n % 2}"],
            "metadata": {"position": n, "author": ("Inês", "xylophone", "kayak", "bank")[n % 4]},
            "created_at": (FIRST + timedelta(minutes=n)).isoformat(),
        }
        for n in range(200)
    ]
    seq = max(other.create(*others[n : n + 50])["seq"] for n in range(0, 200, 50))
    assert [rounded(side.post("/v1/search", body | {"min_seq": seq})) for body in asked] == found
    assert everything(side) == told
