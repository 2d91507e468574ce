"""`memory api`: the HTTP API over a running stack."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from api_stub.commands.output import err
from api_stub.home import connected_settings
from memory.errors import SettingsError
from memory.logs import configure_logging

_LEAVE_WITHIN_S = 5
"""So long a stop waits for answers that are under way; who follows an operation would keep it for minutes."""
_TURN_S = 0.0005
"""So long a thread may keep the others waiting, a tenth of Python's own: each answer goes through several."""


def api(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    development: Annotated[
        bool, typer.Option("--dev", help="Answer without a key too; on loopback alone.")
    ] = False,
) -> None:
    """Serve the HTTP API. A key is needed: `memory keys create`.

    Example: memory api --port 8080
    """
    try:
        import uvicorn  # noqa: PLC0415 (an extra)

        from api_stub.http_api.app import HAS_MCP, make_app  # noqa: PLC0415
        from api_stub.http_api.guards import is_loopback  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"memory api: {error.name} is not installed: pip install 'everkept[api]'"
        raise SettingsError(message) from None
    if development and not is_loopback(host):
        raise SettingsError(f"--dev answers to anybody who can reach it: --host {host} is not loopback")
    settings = connected_settings()
    configure_logging(level=settings.log_level, process="api")
    if development:
        err.print(
            "memory api: DEVELOPMENT MODE: anybody on this machine may read and change every memory",
            markup=False,
        )
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    err.print(f"memory api: {place}/docs" + (f", MCP at {place}/mcp" if HAS_MCP else ""), markup=False)
    sys.setswitchinterval(_TURN_S)
    # Not one line a request: a path may tell what is in a memory. The rest is logged as everywhere.
    uvicorn.run(
        make_app(settings, is_open=development),
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_LEAVE_WITHIN_S,
    )
