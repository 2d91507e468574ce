"""`memory up`: the whole local stack in the foreground."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import Annotated

import typer

from api_stub.commands.output import err
from api_stub.commands.stopping import tidy_up_when_stopped
from api_stub.home import hold_home
from api_stub.stack.cores import n_embed_workers
from api_stub.stack.local import local_stack
from memory.errors import SettingsError
from memory.settings import read_settings


def up(
    embed_workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that embed (else: MEMORY_EMBED_WORKERS, one a core)."),
    ] = None,
    api: Annotated[bool, typer.Option("--api", help="Serve the HTTP API too, on loopback.")] = False,
    api_port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
) -> None:
    """Start, supervise and stop the whole stack. Ctrl-C stops it.

    Servers that REDIS_URL and MEMORY_DB_URL do not name are started here, with all state in MEMORY_HOME.

    Example: MEMORY_HOME=~/my-memory memory up --embed-workers 2
    """
    settings = read_settings()
    n_workers = embed_workers or n_embed_workers(settings)
    if api:
        _check_api(api_port)
    tidy_up_when_stopped()  # until the supervisor heeds the signals itself
    os.umask(0o077)  # memories are their owner's: nobody else reads what is written from here on
    with hold_home(settings.home):
        supervisor = local_stack(
            settings, n_embed_workers=n_workers, say=_say, api_port=api_port if api else None
        )

        def on_ready() -> None:
            names = ", ".join(child.name for child in supervisor.children())
            _say(f"ready: {names}; state and logs in {settings.home}")
            if api:
                _say(f"the API: http://127.0.0.1:{api_port}/docs, for a key of `memory keys create`")

        _say(f"starting in {settings.home}")
        code = supervisor.run(on_ready=on_ready)
        _say("stopped")
    raise typer.Exit(code)


def _check_api(port: int) -> None:
    """Refuse to start what could never serve."""
    if find_spec("fastapi") is None:
        raise SettingsError("memory up --api: fastapi is not installed: pip install 'everkept[api]'")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(f"--api-port {port}: {error.strerror}: choose another one") from None


def _say(message: str) -> None:
    err.print(f"memory up: {message}", markup=False)
