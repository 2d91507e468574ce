"""The MCP server: the tools with what a client is told of them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations

from api_stub.mcp_server.tools import Door, MemoryTools

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.mcpserver import Context
    from mcp_types import CallToolResult, InputRequiredResult

_INSTRUCTIONS = (
    "A memory that lasts over conversations. Before you answer what earlier conversations may bear on, call "
    "search_memories. When you learn what will matter later (facts, preferences, decisions, plans), call "
    "add_memory. When something is no longer right, call update_memory. Delete only what you were asked to."
)


class MemoryServer(MCPServer[Any]):
    """An MCP server whose tools refuse arguments that they do not know, instead of ignoring them."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool by name with arguments."""
        known = next(
            (tool.input_schema["properties"] for tool in await self.list_tools() if tool.name == name), None
        )
        unknown = sorted(set(arguments) - set(known)) if known is not None else []
        if known is not None and unknown:
            raise ToolError(f"unknown argument {unknown[0]!r}: {name} takes {', '.join(known)}")
        return await super().call_tool(name, arguments, context)


def make_server(door: Door) -> MemoryServer:
    """Return the server of what stands behind a door. It writes nothing but warnings to its log."""
    tools = MemoryTools(door)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    adds = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    changes = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )
    offered: list[tuple[Callable[..., Any], str, ToolAnnotations]] = [
        (tools.add_memory, "Remember something", adds),
        (tools.add_memories, "Remember several things", adds),
        (tools.search_memories, "Search memories", reads),
        (tools.get_memory, "Read a memory", reads),
        (tools.list_memories, "List memories", reads),
        (tools.update_memory, "Change a memory", changes),
        (tools.delete_memory, "Delete a memory", changes),
        (tools.add_association, "Link two memories", adds),
        (tools.get_related_memories, "Read linked memories", reads),
        (tools.get_operation_status, "Ask how far an operation is", reads),
        (tools.memory_stats, "Count memories", reads),
        (tools.preview_cleanup, "Count what a cleanup would forget", reads),
    ]
    server = MemoryServer(
        "everkept",
        title="Everkept memory",
        instructions=_INSTRUCTIONS,
        version=version("everkept"),
        tools=[_tool(function, title, annotations) for function, title, annotations in offered],
        log_level="WARNING",  # the SDK's lines below that name what was asked for
        subscriptions=False,
    )
    server.resource(
        "memory://{memory_id}",
        name="memory",
        title="A memory",
        description="One memory by its id, as JSON.",
        mime_type="application/json",
    )(tools.read_memory)
    return server


def _tool(function: Callable[..., Any], title: str, annotations: ToolAnnotations) -> Tool:
    tool = Tool.from_function(function, title=title, annotations=annotations)
    tool.parameters["additionalProperties"] = False
    return tool
