"""What the HTTP client makes of its arguments, and of whatever may answer in the API's place."""

from __future__ import annotations

import gzip
import json
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import numpy as np
import pytest

from api_stub.http_client import HttpClient
from memory.cleanup import CleanupPolicy
from memory.errors import (
    AccessDenied,
    InvalidMemory,
    MemorySystemError,
    NotFound,
    QueueFull,
    ServerAway,
    SettingsError,
    TooManyRequests,
)
from memory.models import MemoryType, Receipt


class Place(ThreadingHTTPServer):
    """A server that gives the same answer to everything, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Any] = []
        self.answers(200)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answers(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        """Answer so from now on: bytes as they are, anything else as JSON."""
        self.status, self.headers = status, headers or {}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.asked.clear()


class _Handler(BaseHTTPRequestHandler):
    server: Place

    def answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(json.loads(sent) if sent else self.path)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 (so it is called)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def _place() -> Iterator[Place]:
    with Place() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def place(_place: Place) -> Place:
    _place.answers(200)
    return _place


@pytest.fixture(scope="module")
def client(_place: Place) -> Iterator[HttpClient]:
    with HttpClient(_place.url, key="mem_x") as client:
        yield client


CALLS: dict[str, Callable[[HttpClient], object]] = {
    "enqueue": lambda client: client.enqueue("x"),
    "enqueue_many": lambda client: client.enqueue_many(["x", "y"]),
    "outcomes": lambda client: client.outcomes([Receipt(uid="x", namespace="n")]),
    "wait": lambda client: client.wait(Receipt(uid="x", namespace="n"), timeout_s=0),
    "search": lambda client: client.search("x"),
    "get": lambda client: client.get(1),
    "get_by_uid": lambda client: client.get_by_uid("x"),
    "context": lambda client: client.context(1),
    "update": lambda client: client.update(1, content="x"),
    "list_memories": lambda client: client.list_memories(),
    "associate": lambda client: client.associate(1, 2, "x"),
    "dissociate": lambda client: client.dissociate(1, 2),
    "related": lambda client: client.related(1),
    "delete": lambda client: client.delete(1),
    "cleanup": lambda client: client.cleanup(CleanupPolicy()),
    "erase": lambda client: client.erase(namespace="x"),
    "counts": lambda client: client.counts(),
    "own_key": lambda client: client.own_key(),
}

_LISTS = ("memories", "results", "related", "outcomes", "rejected")
STRANGE: dict[str, tuple[int, object, dict[str, str]]] = {
    "a web page": (200, b"<html>Welcome</html>", {}),
    "an empty body": (200, b"", {}),
    "no content": (204, b"", {}),
    "an empty object": (200, {}, {}),
    "a list": (200, [], {}),
    "a text": (200, "ok", {}),
    "null": (200, None, {}),
    "bytes that are no text": (200, b'{"a": "\xff"}', {}),
    "far too deep": (200, b"[" * 200_000, {}),
    "lists of nothing known": (200, {name: [{}] for name in _LISTS}, {}),
    "lists of lists": (200, {name: [[]] for name in _LISTS}, {}),
    "no gzip": (200, b"{}", {"Content-Encoding": "gzip"}),
    "half a gzip": (200, gzip.compress(b"{}")[:-9], {"Content-Encoding": "gzip"}),
    "a redirect": (302, b"<html>Moved</html>", {"Location": "https://memory.example/"}),
    "a redirect that looks like a problem": (308, {"code": "not-found", "detail": "x"}, {"Location": "/x"}),
    "a redirect to nowhere": (301, b"", {"Location": "http://[x"}),
    "a gateway's page": (502, b"<html>Bad Gateway</html>", {}),
    "an error that says nothing": (500, b"", {}),
    "another error": (500, {"code": "internal", "detail": "an unexpected error"}, {}),
    "a problem that is a list": (422, ["invalid"], {}),
    "a problem that is a text": (422, "invalid", {}),
    "a code that is no text": (404, {"code": ["not-found"], "detail": "x"}, {}),
}


@pytest.mark.parametrize("called", CALLS)
@pytest.mark.parametrize("strange", STRANGE)
def test_what_the_api_would_not_answer_is_another_server_in_its_place(
    place: Place, client: HttpClient, strange: str, called: str
) -> None:
    place.answers(*STRANGE[strange])
    with pytest.raises(ServerAway):
        CALLS[called](client)
    assert len(place.asked) == 1


def test_a_redirect_says_where_it_leads(place: Place, client: HttpClient) -> None:
    place.answers(301, b"", {"Location": "https://memory.example/"})
    with pytest.raises(ServerAway, match=r"answered 301 that it is at 'https://memory\.example/'"):
        client.get(1)


@pytest.mark.parametrize(
    "errors",
    [
        "invalid",
        {"field": "x", "allowed": "y"},
        5,
        ["x"],
        [None],
        [{}],
        [{"field": "x"}],
        [{"field": 1, "allowed": "y"}],
        [{"field": "x", "allowed": None}],
        [{"field": f"memories[{'9' * 5000}]", "allowed": "y"}],
        [{"field": "memories[0]", "allowed": "y"}, {"field": None, "allowed": "y"}],
    ],
)
def test_errors_that_are_none_are_not_the_apis(place: Place, client: HttpClient, errors: object) -> None:
    place.answers(422, {"code": "invalid", "detail": "x = 1: must be y", "errors": errors})
    for call in CALLS.values():
        with pytest.raises(ServerAway, match="answered 422 without saying why"):
            call(client)


def test_a_refusal_names_the_field_or_at_least_says_why(place: Place, client: HttpClient) -> None:
    errors = [{"field": "limit", "allowed": "1..10"}]
    place.answers(422, {"code": "invalid", "detail": "limit = 11: must be 1..10", "errors": errors})
    with pytest.raises(InvalidMemory, match=r"^limit = 11: must be 1\.\.10$") as caught:
        client.list_memories(limit=11)
    assert (caught.value.field, caught.value.allowed) == ("limit", "1..10")
    for errors_or_none in ({}, {"errors": None}, {"errors": []}):
        place.answers(413, {"code": "too-large", "detail": "at most 8 MiB", **errors_or_none})
        with pytest.raises(InvalidMemory, match=r"^at most 8 MiB$"):
            client.list_memories()


def test_a_hand_over_is_not_accepted_where_its_places_were_not_handed_over(
    place: Place, client: HttpClient
) -> None:
    told: list[tuple[int, object]] = [
        (202, {"namespace": "n", "rejected": [{"position": 2, "reason": "x"}]}),
        (202, {"namespace": "n", "rejected": [{"position": "0", "reason": "x"}]}),
        (202, {"namespace": None, "rejected": []}),
        (422, {"code": "invalid", "detail": "x", "errors": [{"field": "memories[0]", "allowed": "y"}]}),
    ]
    for status, answer in told:
        place.answers(status, answer)
        with pytest.raises(ServerAway):
            client.enqueue_many(["a", "b"])
    place.answers(202, {"namespace": "n", "rejected": [{"position": 1, "reason": ""}]})
    handed = client.enqueue_many(["a", "b"])
    assert ([one.namespace for one in handed], [one.position for one in handed.rejected]) == (["n"], [1])


def test_outcomes_of_other_memories_are_no_answer(place: Place, client: HttpClient) -> None:
    place.answers(200, {"outcomes": []})
    with pytest.raises(ServerAway):
        client.outcomes([Receipt(uid="x", namespace="n")])


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("7", 7.0),
        ("²", 1.0),
        ("٣".encode().decode("latin-1"), 1.0),
        ("-5", 1.0),
        ("1.5", 1.0),
        ("9" * 20, 1.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0),
        ("", 1.0),
    ],
)
@pytest.mark.parametrize(
    ("code", "kind"), [("too-many-requests", TooManyRequests), ("queue-full", QueueFull)]
)
def test_when_to_ask_again_is_a_second_where_it_is_not_said_in_digits(
    place: Place,
    client: HttpClient,
    given: str,
    understood: float,
    code: str,
    kind: type[TooManyRequests | QueueFull],
) -> None:
    place.answers(429, {"code": code, "detail": "later"}, {"Retry-After": given})
    with pytest.raises(kind) as caught:
        client.get(1)
    assert caught.value.retry_after_s == understood


def test_problems_keep_their_meaning(place: Place, client: HttpClient) -> None:
    known: list[tuple[int, str, type[MemorySystemError]]] = [
        (401, "unauthorized", AccessDenied),
        (404, "not-found", NotFound),
        (503, "server-away", ServerAway),
    ]
    for status, code, kind in known:
        place.answers(status, {"code": code, "detail": "so it is"})
        with pytest.raises(kind, match=r"^so it is$"):
            client.get(1)


REFUSED: dict[str, Callable[[HttpClient], object]] = {
    "timeout_s = nan": lambda client: client.search("x", timeout_s=math.nan),
    "timeout_s = -1": lambda client: client.search("x", timeout_s=-1),
    "after": lambda client: client.search("x", after="\ud800"),
    "namespace = ''": lambda client: client.cleanup(CleanupPolicy(namespace="")),
    "memory_types = ()": lambda client: client.cleanup(CleanupPolicy(memory_types=())),
    "max_age_days = nan": lambda client: client.cleanup(CleanupPolicy(max_age_days=math.nan)),
    "min_importance = inf": lambda client: client.cleanup(CleanupPolicy(min_importance=math.inf)),
    "brake_share = 0.5": lambda client: client.cleanup(CleanupPolicy(brake_share=0.5)),
    "brake_count = 5": lambda client: client.cleanup(CleanupPolicy(brake_count=5)),
    "force = nan": lambda client: client.cleanup(CleanupPolicy(), force=math.nan),  # type: ignore[arg-type]
    "dry_run = {1}": lambda client: client.erase(source="x", dry_run={1}),  # type: ignore[arg-type]
    "uid": lambda client: client.outcomes([Receipt(uid="\ud800", namespace="n")]),
    "where = .*: must be short enough to stand in a URL": lambda client: client.list_memories(
        where={"source": {"in": [f"{n:04} " + "x" * 500 for n in range(200)]}}
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_sent_is_refused_before(place: Place, client: HttpClient, words: str) -> None:
    with pytest.raises(InvalidMemory, match=f"^{words}"):
        REFUSED[words](client)
    assert place.asked == []


def test_no_place_and_no_key_are_no_settings() -> None:
    for url in ("http://[x", "http://h:abc", "http://h:99999", "http://" + "a" * 70_000, "http://a\n.b"):
        with pytest.raises(SettingsError, match="must be http"):
            HttpClient(url)
    for key in ("mem_é", "mem_\ud800", "mem_\n"):
        with pytest.raises(SettingsError, match="key"):
            HttpClient("http://127.0.0.1", key=key)


def test_numbers_of_numpy_and_what_is_iterated_over_once_are_sent(place: Place, client: HttpClient) -> None:
    place.answers(200, {"results": []})
    client.search(
        "x",
        limit=np.int64(3),  # type: ignore[typeddict-item]
        min_seq=np.int64(7),  # type: ignore[arg-type]
        memory_types=iter(["TASK", MemoryType.TASK, "semantic"]),
        source=iter(["chat:1", "chat:2"]),
        since=datetime(2025, 3, 4, tzinfo=UTC),
    )
    [sent] = place.asked
    assert (sent["limit"], sent["min_seq"], sent["memory_types"], sent["source"], sent["since"]) == (
        3,
        7,
        ["task", "semantic"],
        ["chat:1", "chat:2"],
        "2025-03-04T00:00:00+00:00",
    )


@pytest.mark.parametrize(("asked_s", "sent_s", "waited_s"), [(30, 30, 60), (math.inf, 30, 60), (2, 2, 32)])
def test_a_search_is_waited_for_longer_than_it_may_take(
    place: Place, client: HttpClient, asked_s: float, sent_s: float, waited_s: float
) -> None:
    place.answers(200, {"results": []})
    seen: list[httpx2.Request] = []
    client._http.event_hooks = {"request": [seen.append]}
    client.search("x", timeout_s=asked_s)
    client._http.event_hooks = {}
    assert place.asked[0]["wait_s"] == sent_s
    assert seen[0].extensions["timeout"]["read"] == waited_s


def test_a_search_that_names_no_time_leaves_it_to_the_api(place: Place, client: HttpClient) -> None:
    place.answers(200, {"results": []})
    client.search("x")
    client.search("x", timeout_s=0)
    assert all("wait_s" not in sent for sent in place.asked)
    assert len(place.asked) == 2
