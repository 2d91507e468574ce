"""MCP over streamable HTTP, behind the keys of the HTTP API."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings

from api_stub.access import Caller
from api_stub.http_api.access import KEY
from api_stub.http_api.problems import problem
from api_stub.mcp_server.server import make_server
from api_stub.mcp_server.tools import Door
from api_stub.waiting import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.types import Receive, Scope, Send

    from api_stub.client import MemoryClient
    from api_stub.handing_over import KeepsOperations
    from api_stub.pipeline_client import PipelineClient
    from memory.models import Outcome, Receipt


class McpEndpoint:
    """The endpoint of one running API. Each request shows its key: there are no sessions to take over."""

    def __init__(
        self,
        *,
        client: PipelineClient,
        operations: KeepsOperations,
        max_body_bytes: int,
    ) -> None:
        door = Door(client=lambda: client, operations=lambda: operations, caller=_caller, wait=_wait)
        self._server = make_server(door)
        self._server.streamable_http_app(
            stateless_http=True,
            json_response=True,
            max_request_body_size=max_body_bytes,
            # Whose host and origin may come is the API's to say, for all of its paths.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer until the end of the block."""
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, which was admitted already."""
        if scope["method"] != "POST":  # without sessions there is nothing to listen to, and nothing to end
            headers = {"Allow": "POST"}
            answer = problem(405, "method-not-allowed", "Method Not Allowed", headers=headers)
            await answer(scope, receive, send)
            return
        await self._server.session_manager.handle_request(scope, receive, send)


def _caller(ctx: Context) -> Caller:
    request: Any = ctx.request_context.request
    return Caller(request.scope[KEY])


async def _wait(client: MemoryClient, receipts: Sequence[Receipt], timeout_s: float) -> list[Outcome]:
    return await settled(client, receipts, timeout_s=timeout_s)
