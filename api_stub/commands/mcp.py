"""`memory mcp`: the memory as tools of an assistant, on standard input and output."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio.to_thread import run_sync

from api_stub.access import Caller, anybody
from api_stub.client import MemoryClient
from api_stub.commands.output import err
from api_stub.handing_over import KeepsOperations, RecentOperations
from api_stub.home import connected_settings, holds_stack
from memory.errors import NoStack, SettingsError
from memory.logs import configure_logging
from memory.operations import Operations
from memory.settings import Settings, read_settings
from memory.validation import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memory.api_keys import ApiKey
    from memory.models import Outcome, Receipt

EMBEDDED = "memories.db"
"""The embedded memory's database, under MEMORY_HOME."""


def mcp(
    url: Annotated[
        str | None, typer.Option(help="Speak to this HTTP API, opened by MEMORY_API_KEY, instead.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use the embedded memory, whether a stack runs or not.")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Keep to this namespace, and call it so.")
    ] = None,
) -> None:
    """Serve the memory to an assistant over MCP, on standard input and output.

    It is the running stack's, else, where there is none in MEMORY_HOME, an embedded one in SQLite: no
    server is needed. Over HTTP, `memory api` serves MCP at /mcp.

    Example: memory mcp --namespace ines
    """
    try:
        from api_stub.mcp_server.server import make_server  # noqa: PLC0415 (an extra)
        from api_stub.mcp_server.tools import Door  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"memory mcp: {error.name} is not installed: pip install 'everkept[mcp]'"
        raise SettingsError(message) from None
    if url and embedded:
        raise SettingsError("--url and --embedded are two different memories: choose one")
    configure_logging(level=read_settings().log_level, process="mcp")
    namespaces = None if namespace is None else (check_name("namespace", namespace),)
    memory = _remote(url, namespaces) if url else _own(namespaces, is_embedded=embedded)
    err.print(f"memory mcp: {memory.place}", markup=False)
    # The answer to the first message must not wait until a model is loaded: a client gives up before.
    client = _opened_meanwhile(memory.open)
    server = make_server(
        Door(
            client=client.result,
            operations=lambda: memory.operations,
            caller=lambda _ctx: Caller(memory.key()),
            wait=_wait,
        )
    )
    try:
        server.run("stdio")
    finally:
        with suppress(Exception):  # what kept it from opening was told to whoever called a tool
            client.result().close()


async def _wait(client: MemoryClient, receipts: Sequence[Receipt], timeout_s: float) -> list[Outcome]:
    return await run_sync(lambda: client.wait(receipts, timeout_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """One that can be served: how it is named and opened, and what may be done there."""

    place: str
    open: Callable[[], MemoryClient]
    operations: KeepsOperations
    key: Callable[[], ApiKey]


def _remote(url: str, namespaces: tuple[str, ...] | None) -> _Memory:
    client = MemoryClient.from_url(url)

    @cache  # once it has been answered
    def key() -> ApiKey:
        found = client.own_key()
        return found if namespaces is None else replace(found, namespaces=namespaces)

    return _Memory(place=f"the API at {url}", open=lambda: client, operations=RecentOperations(), key=key)


def _own(namespaces: tuple[str, ...] | None, *, is_embedded: bool) -> _Memory:
    key = anybody("standard input", namespaces=namespaces)
    stack = None if is_embedded else _of_stack()
    if stack is not None:
        from api_stub.pipeline_client import PipelineClient  # noqa: PLC0415 (slow to import)

        place = f"the stack of {stack.home}"
        if (stack.home / EMBEDDED).exists():
            place += f"; {EMBEDDED} beside it is another memory (--embedded)"
        operations = Operations(stack.redis_database_url("results"))
        return _Memory(
            place=place, open=lambda: PipelineClient(stack), operations=operations, key=lambda: key
        )
    settings = _embedded_settings()

    def open_embedded() -> MemoryClient:
        from api_stub.embedded_client import EmbeddedClient  # noqa: PLC0415 (slow to import)

        return EmbeddedClient(settings)

    place = f"an embedded memory, {settings.db_url}"
    return _Memory(place=place, open=open_embedded, operations=RecentOperations(), key=lambda: key)


def _of_stack() -> Settings | None:
    """Return how to reach the stack, `None` where there has never been one.

    Raises:
        NoStack: there has been, and it does not run: another, empty memory is not what is meant.

    """
    try:
        return connected_settings()
    except NoStack:
        settings = read_settings()
        is_named = settings.redis_url or (settings.db_url and not settings.db_url.startswith("sqlite:"))
        if is_named or holds_stack(settings.home):
            raise
        return None


def _embedded_settings() -> Settings:
    """Return settings with the embedded memory's database: MEMORY_DB_URL where that is SQLite."""
    settings = read_settings()
    if settings.db_url and settings.db_url.startswith("sqlite:"):
        return settings
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.home / EMBEDDED
    Path(path).touch(mode=0o600)  # memories are their owner's
    return read_settings(db_url=f"sqlite:///{path}", index_path=path.with_suffix(".faiss"))


def _opened_meanwhile(open_client: Callable[[], MemoryClient]) -> Future[MemoryClient]:
    found: Future[MemoryClient] = Future()

    def open_() -> None:
        try:
            found.set_result(open_client())
        except BaseException as error:  # noqa: BLE001 (whoever asks for the client gets it)
            err.print(f"memory mcp: {error}", markup=False)
            found.set_exception(error)

    threading.Thread(target=open_, name="open-memory", daemon=True).start()
    return found
