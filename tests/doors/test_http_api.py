"""The HTTP API over a running stack: real processes, real keys, real requests."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import psutil
import pytest

from api_stub.http_api.access import LOOK_EVERY_S, REVOKED_WITHIN_S
from tests.doors.api import api, new_key, serving
from tests.pipeline.stack import Stack
from tests.waiting import wait_until


@contextmanager
def away(stack: Stack, name: str) -> Iterator[None]:
    """Let a server be gone, and nobody start it again, until the end of the block."""
    with suspended(psutil.Process(stack.process.pid)):
        stack.child(name).kill()
        yield


NO_KEY = f"mem_{'0' * 12}_{'0' * 43}"
"""It looks like one."""


def created(client: httpx2.Client, *contents: str, **fields: Any) -> dict[str, Any]:
    """Hand over memories, wait until they are searchable, and return the operation."""
    body = {"memories": [{"content": content, **fields} for content in contents]}
    answer = client.post("/v1/memories", json=body, headers={"Prefer": "wait=30"})
    assert answer.status_code == 202, answer.text
    operation: dict[str, Any] = answer.json()
    assert operation["status"] == "succeeded"
    return operation


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    return problem


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_a_memory_is_created_searched_changed_and_deleted(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "ines")) as client:
        operation = created(client, "Inês is allergic to hazelnuts", "The boat is called Maré")
        assert operation["counts"]["searchable"] == 2
        memory_id = operation["memories"][0]["id"]
        found = client.post("/v1/search", json={"query": "hazelnuts", "min_seq": operation["seq"]}).json()
        assert found["results"][0]["id"] == memory_id
        assert found["results"][0]["content"] == "Inês is allergic to hazelnuts"
        assert client.get(f"/v1/memories/{memory_id}").json()["namespace"] == "ines"
        listed = client.get("/v1/memories", params={"limit": 1}).json()
        assert [memory["content"] for memory in listed["memories"]] == ["The boat is called Maré"]
        rest = client.get("/v1/memories", params={"limit": 1, "cursor": listed["next"]}).json()
        assert [memory["id"] for memory in rest["memories"]] == [memory_id]
        changed = client.patch(
            f"/v1/memories/{memory_id}",
            json={"content": "She is allergic to all nuts", "metadata": {"checked": True}},
            headers={"Prefer": "respond-async, wait=30"},
        )
        assert changed.headers["preference-applied"] == "wait=30"
        assert changed.json()["status"] == "succeeded"
        now = client.get(f"/v1/memories/{memory_id}").json()
        assert (now["content"], now["metadata"]) == ("She is allergic to all nuts", {"checked": True})
        deleted = client.delete(f"/v1/memories/{memory_id}").json()
        assert (deleted["id"], deleted["state"]) == (memory_id, "deleted")
        refused(client.get(f"/v1/memories/{memory_id}"), 404, "not-found")
        after = client.post("/v1/search", json={"query": "nuts", "min_seq": deleted["seq"]}).json()
        assert memory_id not in [hit["id"] for hit in after["results"]]


def test_an_operation_tells_how_far_it_is_and_which_memories_were_refused(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "ops")) as client:
        drafts = [{"content": "one"}, {"content": "long " * 10_000}, {"content": "three"}]
        answer = client.post("/v1/memories", json={"memories": drafts})
        assert answer.status_code == 202
        operation = answer.json()
        assert answer.headers["location"] == f"/v1/operations/{operation['id']}"
        reason = "content: must be at most 32768 bytes, not 50000"
        assert operation["rejected"] == [{"position": 1, "reason": reason}]
        with client.stream("GET", f"{answer.headers['location']}/events") as events:
            told = "".join(events.iter_text())
        last = told.strip().split("\n\n")[-1].splitlines()
        assert last[0] == "event: end"
        end = json.loads(last[1].removeprefix("data: "))
        assert (end["status"], end["counts"]["searchable"], end["counts"]["rejected"]) == ("partly", 2, 1)
        assert client.get(answer.headers["location"]).json() == end
        for there_is_none in ("/v1/operations/nothing", "/v1/operations/nothing/events"):
            refused(client.get(there_is_none), 404, "not-found")
        for bad in (drafts[1:2], drafts[1:2] * 2, [{"content": "fine"}, {"content": " "}]):
            refused(client.post("/v1/memories", json={"memories": bad}), 422, "invalid")


def test_the_same_request_under_the_same_idempotency_key_is_carried_out_once(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "once")) as client:
        headers = {"Idempotency-Key": "one", "Prefer": "wait=30"}
        body = {"memories": [{"content": "a kite"}, {"content": "a boat"}]}
        first, again = (client.post("/v1/memories", json=body, headers=headers).json() for _ in range(2))
        assert again == first
        assert client.get("/v1/memories").json()["memories"][0]["content"] == "a boat"
        assert len(client.get("/v1/memories").json()["memories"]) == 2
        other = client.post("/v1/memories", json={"memories": [{"content": "x"}]}, headers=headers)
        refused(other, 422, "idempotency-key-reused")


def test_a_key_sees_nothing_of_another_namespace(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "mine")) as mine, api(url, new_key(stack, "theirs")) as theirs:
        operation = created(mine, "The safe's number is 4711")
        memory_id = operation["memories"][0]["id"]
        own = created(theirs, "The safe is green")["memories"][0]["id"]
        unknown = 10**12
        for make in (
            lambda i: theirs.get(f"/v1/memories/{i}"),
            lambda i: theirs.get(f"/v1/memories/{i}/context"),
            lambda i: theirs.get(f"/v1/memories/{i}/related"),
            lambda i: theirs.patch(f"/v1/memories/{i}", json={"content": "x"}),
            lambda i: theirs.delete(f"/v1/memories/{i}"),
            lambda i: theirs.post(
                f"/v1/memories/{own}/associations", json={"related_memory_id": i, "relationship_type": "x"}
            ),
            lambda i: theirs.delete(f"/v1/memories/{i}/associations/{own}"),
        ):
            there, nowhere = make(memory_id), make(unknown)
            refused(there, 404, "not-found")
            assert there.text.replace(str(memory_id), "ID") == nowhere.text.replace(str(unknown), "ID")
        for namespace in ("mine", "nobody's"):
            answer = theirs.post("/v1/search", json={"query": "safe", "namespace": namespace})
            assert refused(answer, 404, "not-found")["detail"] == f"no namespace {namespace!r}"
            refused(theirs.get("/v1/memories", params={"namespace": namespace}), 404, "not-found")
        for path in (f"/v1/operations/{operation['id']}", f"/v1/operations/{operation['id']}/events"):
            refused(theirs.get(path), 404, "not-found")
        assert "4711" not in theirs.post("/v1/search", json={"query": "the safe's number"}).text
        assert mine.get(f"/v1/memories/{memory_id}").status_code == 200


def test_without_a_key_or_its_scope_nothing_is_done(stack: Stack, url: str) -> None:
    answer = httpx2.get(f"{url}/v1/memories")
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    refused(httpx2.get(f"{url}/v1/memories", headers={"X-API-Key": "mem_x"}), 401, "unauthorized")
    with api(url, new_key(stack, "scopes", scopes="read")) as reader:
        assert reader.get("/v1/memories").status_code == 200
        refused(reader.post("/v1/memories", json={"memories": [{"content": "x"}]}), 403, "scope-missing")
        refused(reader.post("/v1/cleanup", json={"dry_run": False}), 403, "scope-missing")
        refused(reader.get("/metrics"), 403, "scope-missing")
    slow = new_key(stack, "scopes", requests_a_minute=2)
    with api(url, slow) as client:
        answers = [client.get("/v1/memories") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        refused(answers[-1], 429, "too-many-requests")


def test_a_revoked_key_opens_nothing_within_seconds(stack: Stack, url: str) -> None:
    made = json.loads(stack.memory("keys", "create", "gone", "-n", "gone", "--json").stdout)
    with api(url, made["key"]) as client:
        assert client.get("/v1/memories").status_code == 200
        stack.memory("keys", "revoke", made["id"])
        wait_until(lambda: client.get("/v1/memories").status_code == 401, timeout_s=10, why="it is refused")
    assert made["key"] not in stack.memory("keys", "list").stdout


def test_memories_hang_together_over_http_too(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "links")) as client:
        vet, bill = (one["id"] for one in created(client, "the vet", "the bill")["memories"])
        link = {"related_memory_id": bill, "relationship_type": "led_to", "strength": 0.5}
        assert client.post(f"/v1/memories/{vet}/associations", json=link).status_code == 201
        [related] = client.get(f"/v1/memories/{vet}/related").json()["related"]
        assert (related["id"], related["relation"]["strength"]) == (bill, 0.5)
        assert client.delete(f"/v1/memories/{vet}/associations/{bill}").json() == {"removed": 1}


def test_an_operator_counts_cleans_up_and_erases_within_the_keys_namespaces(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "care", scopes="read write admin")) as client:
        ids = [one["id"] for one in created(client, "one", "two", "three")["memories"]]
        counts = client.get("/v1/stats").json()
        assert (counts["stored"], counts["searchable"]) == (3, 3)
        report = client.post("/v1/cleanup", json={"max_age_days": 0, "min_importance": 0.9}).json()
        assert (report["total_found"], report["deleted"], report["dry_run"]) == (3, 0, True)
        for everything in ({"namespace": "care"}, {"source": "user"}, {"ids": ids}):
            assert client.post("/v1/erase", json=everything).json()["remaining"]["rows"] == 3
        for nothing in ({}, {"dry_run": False}, {"namespace": None}):
            refused(client.post("/v1/erase", json=nothing), 422, "invalid")
        for n_erased in (1, 0):  # once more is the same once more
            receipt = client.post("/v1/erase", json={"ids": ids[:1], "dry_run": False}).json()
            assert (receipt["n_erased"], receipt["complete"]) == (n_erased, True)
        receipt = client.post("/v1/erase", json={"namespace": "care", "dry_run": False}).json()
        assert (receipt["n_erased"], receipt["complete"]) == (2, True)
        refused(client.post("/v1/erase", json={"namespace": "links"}), 404, "not-found")
        with api(url, new_key(stack, "another's")) as another:
            theirs = created(another, "theirs")["memories"][0]["id"]
        for not_own in (theirs, 2**52):
            answer = client.post("/v1/erase", json={"ids": [ids[0], not_own], "dry_run": False})
            assert refused(answer, 404, "not-found")["detail"] == f"no memory with id {not_own}"
    with api(url, new_key(stack, scopes="admin read")) as everywhere:
        assert everywhere.post("/v1/cleanup", json={"max_age_days": 0, "min_importance": 0.9}).json()[
            "by_namespace"
        ].keys() > {"another's"}
        text = everywhere.get("/metrics").text
        assert 'memory_http_requests_total{method="POST",route="/v1/erase",status="200"}' in text
        assert "care" not in text


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("POST", "/v1/memories", {"json": {"memories": [{"content": "x", "importance": 1}]}}, 422, "invalid"),
        ("POST", "/v1/memories", {"json": {"memories": []}}, 422, "invalid"),
        ("POST", "/v1/search", {"json": {"query": "x", "limit": True}}, 422, "invalid"),
        ("POST", "/v1/search", {"json": {"query": "x", "where": {"colour": 1}}}, 422, "invalid"),
        ("POST", "/v1/search", {"json": {"query": "x", "after": "x"}}, 422, "invalid"),
        ("POST", "/v1/search", {"json": {"query": "x", "rerank": True}}, 422, "no-reranker"),
        (
            "POST",
            "/v1/search",
            {"json": {"query": "x", "min_seq": 10**9, "wait_s": 0.5}},
            409,
            "not-yet-searchable",
        ),
        (
            "POST",
            "/v1/search",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "malformed",
        ),
        ("POST", "/v1/memories", {"content": b" " * (2**23 + 1)}, 413, "too-large"),
        ("GET", "/v1/memories?cursor=x", {}, 422, "invalid"),
        ("GET", "/v1/memories?where=[1]", {}, 422, "invalid"),
        ("GET", "/v1/memories/0", {}, 422, "invalid"),
        ("GET", "/v1/nothing", {}, 404, "not-found"),
        ("PUT", "/v1/memories", {}, 405, "method-not-allowed"),
        (
            "POST",
            "/v1/memories",
            {"json": {"memories": [{"content": "x", "uid": "a\u202eb"}]}},
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/memories",
            {"json": {"memories": [{"content": "x", "created_at": "now"}]}},
            422,
            "invalid",
        ),
        ("POST", "/v1/erase", {"json": {"ids": [1], "namespace": "x"}}, 403, "scope-missing"),
        ("GET", "/v1/memories", {"headers": {"Origin": "https://evil.example"}}, 403, "cross-origin"),
    ],
)
def test_what_is_not_allowed_is_a_problem_with_a_code(
    stack: Stack, url: str, method: str, path: str, sent: dict[str, Any], status: int, code: str
) -> None:
    with api(url, new_key(stack, "bad")) as client:
        answer = client.request(method, path, **sent)
        assert refused(answer, status, code)["detail"]
        assert answer.headers.get("allow") == ("GET, POST" if status == 405 else None)


def test_a_uid_is_of_one_memory_and_stays_gone_with_it(stack: Stack, url: str) -> None:
    with api(url, new_key(stack, "uids")) as client:
        drafts = [{"content": "first", "uid": "1"}, {"content": "second", "uid": "1"}, {"content": "third"}]
        answer = client.post("/v1/memories", json={"memories": drafts}, headers={"Prefer": "Wait=30"}).json()
        assert (answer["status"], answer["counts"]["searchable"]) == ("partly", 2)
        assert [one["position"] for one in answer["rejected"]] == [1]
        assert client.delete(f"/v1/memories/{answer['memories'][0]['id']}").status_code == 200
        again = {"memories": [{"content": "again", "uid": "1"}]}
        answer = client.post("/v1/memories", json=again, headers={"Prefer": "wait=30"}).json()
        assert (answer["status"], answer["counts"]["deleted"]) == ("failed", 1)
        assert "stays gone" in answer["memories"][0]["reason"]


def test_who_waits_for_a_write_that_never_comes_keeps_no_search_waiting(stack: Stack, url: str) -> None:
    never = {"query": "x", "min_seq": 2**53 - 1, "wait_s": 10}
    many = httpx2.Limits(max_connections=60)
    with (
        api(url, new_key(stack, "reader", scopes="read"), limits=many) as patient,
        api(url, new_key(stack, "searching")) as client,
        ThreadPoolExecutor(60) as waiting,
    ):
        seq = created(client, "a kite")["seq"]
        asked = [waiting.submit(patient.post, "/v1/search", json=never) for _ in range(60)]
        for _ in range(5):
            found = client.post("/v1/search", json={"query": "kite", "min_seq": seq, "wait_s": 10})
            assert found.json()["results"][0]["content"] == "a kite"
        assert not any(one.done() for one in asked)  # all of them wait still
        assert {refused(one.result(), 409, "not-yet-searchable")["detail"] for one in asked} == {
            f"write {2**53 - 1} is not searchable yet"
        }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"query": "x", "memory_types": [1] * 1_000_000}),
        ("/v1/cleanup", {"memory_types": ["task"] * 800_000}),
        ("/v1/search", {"query": "x", "where": {"or": [{"uid": "x"}] * 500_000}}),
        ("/v1/search", {"query": "x", "where": {"uid": {"in": ["x"] * 1_500_000}}}),
        ("/v1/search", {f"unknown {n}": n for n in range(300_000)}),
        ("/v1/memories", {"memories": [{"content": ""}] * 400_000}),
        ("/v1/search", {"query": "x", "limit": 1000, "context": 10}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:40],
)
def test_a_monstrous_body_is_refused_in_few_words(stack: Stack, url: str, path: str, body: Any) -> None:
    with api(url, new_key(stack, "monstrous")) as client:
        answer = client.post(path, json=body)
        refused(answer, 422, "invalid")
        assert len(answer.content) < 5_000


def test_without_a_key_nothing_is_read_and_little_is_kept(stack: Stack, url: str) -> None:
    for sent in ({"content": b"{"}, {"json": {"query": 1}}, {"content": b" " * (2**23 + 1)}):
        refused(httpx2.post(f"{url}/v1/search", **sent), 401, "unauthorized")
    refused(httpx2.get(f"{url}/v1/nothing"), 401, "unauthorized")
    for origin in ("http://[", "null", "http://evil.example"):
        refused(httpx2.get(f"{url}/healthz", headers={"Origin": origin}), 403, "cross-origin")
    assert httpx2.request("PROPFIND", f"{url}/healthz").status_code == 405
    with api(url, new_key(stack, scopes="admin")) as everywhere:
        figures = everywhere.get("/metrics").text
        assert 'method="other"' in figures
        assert "PROPFIND" not in figures
        shown = {"Authorization": "Bearer", "X-API-Key": everywhere.headers["Authorization"].split()[1]}
        assert httpx2.get(f"{url}/v1/key", headers=shown).status_code == 200


def test_development_mode_is_said_aloud_and_for_loopback_alone(stack: Stack) -> None:
    with serving(stack, "--dev") as (url, _):
        assert httpx2.get(f"{url}/v1/memories").status_code == 200
        refused(httpx2.get(f"{url}/v1/memories", headers={"X-API-Key": "wrong"}), 401, "unauthorized")
        rebound = {"Host": "evil.example:80", "Origin": "http://evil.example:80"}
        refused(httpx2.get(f"{url}/v1/memories", headers=rebound), 403, "cross-origin")
        log = (stack.home / f"api-{url.rsplit(':', 1)[1]}.log").read_text()
        assert "DEVELOPMENT MODE" in log
    stack.memory("api", "--dev", "--host", "0.0.0.0", expect=6)


def test_what_was_accepted_survives_the_death_of_the_api(stack: Stack) -> None:
    key, accepted = new_key(stack, "killed"), []
    with serving(stack) as (url, process), api(url, key) as client:
        for n in range(40):
            answer = client.post("/v1/memories", json={"memories": [{"content": f"note {n}"}]})
            accepted.append(answer.json()["memories"][0]["uid"])
        process.send_signal(signal.SIGKILL)
        process.wait()
    with stack.client() as direct:
        wait_until(
            lambda: {m.uid for m in direct.list_memories(namespace="killed")} >= {*accepted},
            timeout_s=60,
            why="all that was accepted is there",
        )


def test_who_waits_keeps_nobody_from_being_answered(stack: Stack, url: str) -> None:
    key = new_key(stack, "patient")
    many = httpx2.Limits(max_connections=120)
    with (
        api(url, key, limits=many) as patient,
        api(url, key) as client,
        ThreadPoolExecutor(120) as waiting,
    ):
        body = {"uids": ["never"], "wait_s": 8}
        asked = [waiting.submit(patient.post, "/v1/outcomes", json=body) for _ in range(120)]
        begun = time.monotonic()
        found = created(client, "meanwhile")
        assert client.get(f"/v1/memories/{found['memories'][0]['id']}").status_code == 200
        assert time.monotonic() - begun < 6
        assert {one.result().json()["outcomes"][0]["state"] for one in asked} == {"accepted"}


def test_who_has_hung_up_is_not_waited_for(stack: Stack) -> None:
    with serving(stack) as (url, process):
        with api(url, new_key(stack, "impatient")) as client, ThreadPoolExecutor(20) as waiting:
            body = {"uids": ["never"], "wait_s": 30}
            asked = [waiting.submit(client.post, "/v1/outcomes", json=body, timeout=1) for _ in range(20)]
            assert {type(one.exception()) for one in asked} == {httpx2.ReadTimeout}
        process.terminate()
        process.wait(timeout=4)  # a stop waits for what is under way, five seconds at most


def test_a_stop_does_not_wait_for_who_follows_an_operation(stack: Stack) -> None:
    key = new_key(stack, "follower")
    with serving(stack) as (url, process), api(url, key) as client, suspended(stack.child("embed-1")):
        operation = client.post("/v1/memories", json={"memories": [{"content": "a kite"}]}).json()
        with client.stream("GET", f"/v1/operations/{operation['id']}/events") as events:
            assert "event: progress" in next(events.iter_text())
            process.terminate()
            process.wait(timeout=15)


def test_a_redis_that_hangs_holds_up_only_what_needs_it(stack: Stack) -> None:
    with serving(stack) as (url, _), api(url, new_key(stack, "away")) as client:
        memory_id = created(client, "a kite")["memories"][0]["id"]
        with suspended(stack.child("redis")):
            begun = time.monotonic()
            for _ in range(5):
                assert client.get(f"/v1/memories/{memory_id}").status_code == 200
                assert client.get("/v1/memories").json()["memories"][0]["content"] == "a kite"
                assert client.get("/v1/stats").json()["stored"] == 1
            assert client.delete(f"/v1/memories/{memory_id}").status_code == 200
            assert time.monotonic() - begun < 5
            late = ThreadPoolExecutor(4)
            asked = [
                late.submit(client.post, "/v1/memories", json={"memories": [{"content": "x"}]}),
                late.submit(client.post, "/v1/search", json={"query": "kite", "wait_s": 2}),
                late.submit(client.get, "/v1/operations/nothing"),
                late.submit(client.get, "/readyz"),
            ]
            created_, searched, operation, ready = (one.result() for one in asked)
            refused(created_, 503, "server-away")
            assert refused(searched, 503, searched.json()["code"])["code"] in {
                "server-away",
                "search-unavailable",
            }
            refused(operation, 503, "server-away")
            assert (ready.status_code, ready.json()["status"]) == (503, "not-ready")
        wait_until(lambda: created(client, "again"), timeout_s=60, why="it goes on")


def test_memories_are_accepted_while_the_database_is_away(stack: Stack, url: str) -> None:
    made = json.loads(stack.memory("keys", "create", "late", "-n", "no database", "--json").stdout)
    with api(url, new_key(stack, "no database")) as client, api(url, made["key"]) as late:
        memory_id = created(client, "a kite")["memories"][0]["id"]
        assert late.get("/v1/stats").status_code == 200
        stack.memory("keys", "revoke", made["id"])
        looked_at = time.monotonic() + LOOK_EVERY_S + 1
        wait_until(lambda: time.monotonic() > looked_at, timeout_s=10, why="every known key is looked at")
        with away(stack, "postgres"):
            wait_until(
                lambda: client.get(f"/v1/memories/{memory_id}").status_code == 503,
                timeout_s=30,
                why="the database is away",
            )
            body = {"memories": [{"content": "a boat"}]}
            until = time.monotonic() + REVOKED_WITHIN_S + 1  # by then the key is looked up anew
            while time.monotonic() < until:
                answer = client.post("/v1/memories", json=body, headers={"Prefer": "wait=5"})
                assert answer.status_code == 202, answer.text
                assert (answer.json()["status"], answer.json()["counts"]["accepted"]) == ("running", 1)
            refused(client.get(answer.headers["location"]), 503, "server-away")
            unknown = client.get("/v1/memories", headers={"Authorization": f"Bearer {NO_KEY}"})
            refused(unknown, 503, "server-away")
            refused(late.post("/v1/memories", json=body), 503, "server-away")  # nobody has asked since
        wait_until(
            lambda: client.get(answer.headers["location"]).json()["status"] == "succeeded",
            timeout_s=60,
            why="it became searchable",
        )
        found = client.post("/v1/search", json={"query": "boat"}).json()["results"]
        assert found[0]["content"] == "a boat"


def test_the_log_has_no_content_and_no_key(stack: Stack) -> None:
    secret = "Zanzibar"  # in whatever a request can carry
    key = new_key(stack, "discreet", scopes="read write admin")
    draft = {"content": f"{secret} is where", "source": secret, "metadata": {secret: secret}, "uid": secret}
    with serving(stack, MEMORY_LOG_LEVEL="INFO") as (url, _), api(url, key) as client:
        created(client, draft.pop("content"), **draft)
        for method, path, sent in (
            ("POST", "/v1/search", {"json": {"query": secret, "where": {f"metadata.{secret}": secret}}}),
            ("POST", "/v1/search", {"json": {"query": secret, "where": {secret: secret}}}),
            ("POST", "/v1/search", {"json": {"query": secret, "after": secret}}),
            ("POST", "/v1/memories", {"json": {"memories": [{"content": secret, secret: secret}]}}),
            ("POST", "/v1/memories", {"json": {"memories": [{"content": secret * 9000}]}}),
            ("POST", "/v1/memories", {"content": secret, "headers": {"content-type": "application/json"}}),
            ("GET", f"/v1/memories?namespace={secret}", {}),
            ("GET", f"/v1/{secret}", {}),
            ("GET", f"/v1/operations/{secret}/events", {}),
            ("GET", "/v1/memories", {"headers": {"Authorization": f"Bearer {secret}"}}),
            ("POST", "/v1/erase", {"json": {"source": secret, "dry_run": False}}),
            ("POST", "/mcp", {"json": {"jsonrpc": "2.0", "id": 1, "method": secret}}),
        ):
            client.request(method, path, **sent)
        with away(stack, "redis"):  # what fails is logged too
            answer = client.post("/v1/memories", json={"memories": [{"content": secret}]})
            refused(answer, 503, "server-away")
        log = (stack.home / f"api-{url.rsplit(':', 1)[1]}.log").read_text()
    logs = log + "".join(path.read_text() for path in (stack.home / "logs").iterdir())
    assert "event=" in logs
    for told in (secret, key, key.removeprefix("mem_")[:20]):
        assert told not in logs
    assert "Traceback" not in log
