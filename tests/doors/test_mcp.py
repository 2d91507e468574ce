"""MCP with the official client: in process, over standard input and output, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from api_stub.access import Caller, anybody
from api_stub.embedded_client import EmbeddedClient
from api_stub.handing_over import RecentOperations
from api_stub.mcp_server.server import make_server
from api_stub.mcp_server.tools import Door
from api_stub.waiting import settled
from memory.settings import read_settings
from tests.doors.api import new_key
from tests.pipeline.stack import MEMORY, Stack

TOOLS = {
    "add_memory",
    "add_memories",
    "search_memories",
    "get_memory",
    "list_memories",
    "update_memory",
    "delete_memory",
    "add_association",
    "get_related_memories",
    "get_operation_status",
    "memory_stats",
    "preview_cleanup",
}


def test_in_process_over_an_embedded_memory(tmp_path: Path) -> None:
    settings = read_settings(db_url=f"sqlite:///{tmp_path / 'memories.db'}")
    with EmbeddedClient(settings) as memory:
        operations, caller = RecentOperations(), Caller(anybody("a test"))
        door = Door(
            client=lambda: memory,
            operations=lambda: operations,
            caller=lambda _ctx: caller,
            wait=lambda client, receipts, timeout_s: settled(client, receipts, timeout_s=timeout_s),
        )
        with_client(lambda: Client(make_server(door)), whole_life)


def test_over_standard_input_and_output_without_any_server(tmp_path: Path) -> None:
    environment = {"MEMORY_HOME": str(tmp_path / "home")}
    with_client(lambda: over_stdio(environment), whole_life)
    assert (tmp_path / "home" / "memories.db").stat().st_mode & 0o077 == 0

    async def again(client: Client) -> None:
        assert told(await client.call_tool("memory_stats", {}))["stored"] == 3  # what was added is kept
        assert told(await client.call_tool("search_memories", {"query": "kite"}))["memories"]

    with_client(lambda: over_stdio(environment), again)
    with_client(lambda: over_stdio(environment, mode="legacy"), again)


def test_over_standard_input_and_output_over_the_running_stack(stack: Stack) -> None:
    with_client(lambda: over_stdio(stack.environment, "--namespace", "desk"), whole_life)
    with stack.client() as client:
        assert len(client.list_memories(namespace="desk")) == 3


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_over_http_with_a_key(stack: Stack, url: str, mode: str) -> None:
    key = new_key(stack, f"mcp {uuid.uuid4()}")
    with_client(lambda: over_http(url, key, mode=mode), whole_life)


def test_over_standard_input_and_output_over_a_remote_api(stack: Stack, url: str) -> None:
    environment = {"MEMORY_API_KEY": new_key(stack, "remote")}
    with_client(lambda: over_stdio(environment, "--url", url), whole_life)


async def whole_life(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools.keys() == TOOLS
    for name, tool in tools.items():
        assert tool.description, name
        assert tool.output_schema, name
        assert tool.annotations, name
        is_reading = name.startswith(("get_", "list_", "search_", "memory_", "preview_"))
        assert (name, tool.annotations.read_only_hint) == (name, is_reading)
        assert tool.annotations.destructive_hint is (
            None if is_reading else name in {"update_memory", "delete_memory"}
        )
        assert tool.input_schema["additionalProperties"] is False

    given = {"content": "Inês is allergic to hazelnuts", "memory_type": "semantic", "importance": 0.9}
    added = told(await client.call_tool("add_memory", given))
    assert (added["status"], added["counts"]["searchable"]) == ("succeeded", 1)
    nuts = added["memories"][0]["id"]
    [found] = told(await client.call_tool("search_memories", {"query": "what must she not eat?"}))["memories"]
    assert (found["id"], found["content"], found["metadata"]) == (nuts, given["content"], {"importance": 0.9})

    several = {"memories": [{"content": "a kite"}, {"content": " "}, {"content": "a boat", "source": "chat"}]}
    operation = told(await client.call_tool("add_memories", several))
    assert (operation["status"], [one["position"] for one in operation["rejected"]]) == ("partly", [1])
    asked = told(await client.call_tool("get_operation_status", {"operation_id": operation["id"]}))
    assert asked == operation
    kite, boat = (one["id"] for one in operation["memories"])

    page = told(await client.call_tool("list_memories", {"limit": 2}))
    rest = told(await client.call_tool("list_memories", {"limit": 2, "cursor": page["next_cursor"]}))
    assert {one["id"] for one in [*page["memories"], *rest["memories"]]} == {nuts, kite, boat}
    only = {"query": "boat", "source": ["chat"], "where": {"source": {"in": ["chat"]}}}
    assert [one["id"] for one in told(await client.call_tool("search_memories", only))["memories"]] == [boat]

    link = {"memory_id": kite, "related_memory_id": boat, "relationship_type": "next_to", "strength": 0.5}
    assert told(await client.call_tool("add_association", link))["strength"] == 0.5
    [related] = told(await client.call_tool("get_related_memories", {"memory_id": boat}))["memories"]
    assert (related["id"], related["direction"], related["relationship_type"]) == (
        kite,
        "incoming",
        "next_to",
    )

    change = {"memory_id": nuts, "content": "She may eat all nuts", "importance": 0.4}
    assert told(await client.call_tool("update_memory", change))["status"] == "succeeded"
    read = told(await client.call_tool("get_memory", {"memory_id": nuts}))
    assert (read["content"], read["metadata"]) == ("She may eat all nuts", {"importance": 0.4})
    [resource] = (await client.read_resource(f"memory://{nuts}")).contents
    assert json.loads(resource.text)["content"] == "She may eat all nuts"
    assert (await client.list_resource_templates()).resource_templates[
        0
    ].uri_template == "memory://{memory_id}"

    old = {"max_age_days": 0, "min_importance": 0.45}
    assert told(await client.call_tool("preview_cleanup", old))["would_be_forgotten"] == 1
    assert told(await client.call_tool("memory_stats", {}))["stored"] == 3
    assert told(await client.call_tool("delete_memory", {"memory_id": nuts}))["id"] == nuts
    after = told(await client.call_tool("search_memories", {"query": "which nuts may she eat?"}))
    assert nuts not in [one["id"] for one in after["memories"]]
    await client.call_tool("add_memory", {"content": "one more"})

    for name, arguments, why in (
        ("get_memory", {"memory_id": nuts}, f"no live memory with id {nuts}"),
        ("delete_memory", {"memory_id": nuts}, f"no live memory with id {nuts}"),
        ("add_memory", {"content": " "}, "content = ' ': must be text that is not blank"),
        ("add_memory", {"content": "x", "importance": 2}, "importance"),
        ("add_memory", {"content": "x", "colour": "red"}, "unknown argument 'colour'"),
        ("add_memory", {}, "content"),
        ("search_memories", {"query": "x", "where": {"colour": 1}}, "colour"),
        ("search_memories", {"query": "x", "since": "yesterday"}, "since"),
        ("list_memories", {"cursor": "x"}, "cursor"),
        ("update_memory", {"memory_id": boat}, "must be there"),
        ("add_association", {**link, "related_memory_id": nuts}, f"no live memory with id {nuts}"),
        ("get_operation_status", {"operation_id": "x"}, "no operation 'x'"),
        ("get_memory", {"memory_id": True}, "memory_id"),
        ("search_memories", {"query": "x", "memory_types": ["task"] * 50_000}, "memory_types"),
    ):
        answer = await client.call_tool(name, arguments)
        assert answer.is_error, (name, arguments)
        assert why in answer.content[0].text
    for missing in (nuts, "x", "1" * 30):
        with pytest.raises(MCPError, match="no live memory"):
            await client.read_resource(f"memory://{missing}")


def test_nothing_but_protocol_is_on_standard_output(tmp_path: Path) -> None:
    messages = [
        request(
            1,
            "initialize",
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "t", "version": "1"},
        ),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        request(2, "tools/call", name="add_memory", arguments={"content": "a kite", "wait_s": 0}),
        request(3, "tools/call", name="get_memory", arguments={"memory_id": "x"}),
    ]
    process = subprocess.Popen(
        [*MEMORY, "mcp"],
        env={**os.environ, "MEMORY_HOME": str(tmp_path), "MEMORY_LOG_LEVEL": "DEBUG"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    answers = {}
    for message in messages:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        while message.get("id") and message["id"] not in answers:
            answer = json.loads(process.stdout.readline())
            assert answer["jsonrpc"] == "2.0"
            answers[answer["id"]] = answer
    process.stdin.close()
    assert process.stdout.read() == ""
    assert process.wait(timeout=60) == 0
    assert answers[2]["result"]["structuredContent"]["status"] == "succeeded"
    assert answers[3]["result"]["isError"] is True
    assert process.stderr
    assert "an embedded memory" in process.stderr.read()


def test_a_home_that_holds_a_stack_is_not_taken_for_an_empty_memory(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    environment = {**os.environ, "MEMORY_HOME": str(tmp_path)}
    done = subprocess.run([*MEMORY, "mcp"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no stack runs" in done.stderr
    both = [*MEMORY, "mcp", "--embedded", "--url", "http://x"]
    assert subprocess.run(both, env=environment, capture_output=True, check=False).returncode == 6


def test_a_key_bounds_what_tools_see_and_do(stack: Stack, url: str) -> None:
    mine, theirs = f"mine {uuid.uuid4()}", f"theirs {uuid.uuid4()}"
    with stack.client() as direct:
        outcome = direct.wait(direct.enqueue("The safe's number is 4711", namespace=mine), timeout_s=60)
    stranger, reader = new_key(stack, theirs), new_key(stack, mine, scopes="read")

    async def look(client: Client) -> None:
        for name, arguments in (
            ("get_memory", {"memory_id": outcome.id}),
            ("update_memory", {"memory_id": outcome.id, "content": "x"}),
            ("delete_memory", {"memory_id": outcome.id}),
            ("get_related_memories", {"memory_id": outcome.id}),
            ("search_memories", {"query": "safe", "namespace": mine}),
            ("list_memories", {"namespace": mine}),
            ("memory_stats", {"namespace": mine}),
            ("preview_cleanup", {"namespace": mine}),
            ("add_memory", {"content": "x", "namespace": mine}),
        ):
            answer = await client.call_tool(name, arguments)
            assert answer.is_error, name
            assert "4711" not in answer.model_dump_json()
            assert answer.content[0].text.split(": ", 1)[1] in {
                f"no live memory with id {outcome.id}",
                f"no namespace {mine!r}",
            }
        with pytest.raises(MCPError, match="no live memory"):
            await client.read_resource(f"memory://{outcome.id}")
        assert told(await client.call_tool("search_memories", {"query": "the safe"}))["memories"] == []

    async def read(client: Client) -> None:
        assert told(await client.call_tool("search_memories", {"query": "the safe"}))["memories"]
        answer = await client.call_tool("add_memory", {"content": "x"})
        assert answer.is_error
        assert "no scope 'write'" in answer.content[0].text

    with_client(lambda: over_http(url, stranger), look)
    with_client(lambda: over_http(url, reader), read)


def test_over_http_nobody_is_answered_without_a_key_or_from_elsewhere(stack: Stack, url: str) -> None:
    body = request(1, "tools/list")
    accept = {"Accept": "application/json, text/event-stream"}
    for headers in ({}, {"Authorization": "Bearer mem_wrong"}, {"X-API-Key": "x"}):
        answer = httpx2.post(f"{url}/mcp", json=body, headers={**accept, **headers})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    key = {"Authorization": f"Bearer {new_key(stack, 'elsewhere')}"}
    answer = httpx2.post(f"{url}/mcp", json=body, headers={**accept, **key, "Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin")
    assert httpx2.post(f"{url}/mcp", json=body, headers={**accept, **key}).status_code == 200
    for method in ("GET", "DELETE"):  # nothing to listen to, nothing to end
        answer = httpx2.request(method, f"{url}/mcp", headers={**accept, **key})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def with_client(connect: Callable[[], Client], use: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with connect() as client:
            await use(client)

    asyncio.run(run())


def over_stdio(environment: Any, *arguments: str, mode: str = "auto") -> Client:
    parameters = StdioServerParameters(
        command=sys.executable, args=[*MEMORY[1:], "mcp", *arguments], env={**os.environ, **environment}
    )
    return Client(stdio_client(parameters), mode=mode)


def over_http(url: str, key: str, *, mode: str = "auto") -> Client:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60)
    return Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode)


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def told(answer: Any) -> Any:
    """What a tool gave back, structured; the text says the same."""
    assert not answer.is_error, answer.content[0].text
    assert json.loads(answer.content[0].text) == answer.structured_content
    return answer.structured_content
