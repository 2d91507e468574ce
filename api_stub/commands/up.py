"""`memory up`: the whole local stack in the foreground."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from api_stub.commands.output import err
from api_stub.commands.stopping import tidy_up_when_stopped
from api_stub.home import hold_home
from api_stub.stack.cores import n_embed_workers
from api_stub.stack.local import local_stack
from memory.settings import read_settings


def up(
    embed_workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that embed (else: MEMORY_EMBED_WORKERS, one a core)."),
    ] = None,
) -> None:
    """Start, supervise and stop the whole stack. Ctrl-C stops it.

    Servers that REDIS_URL and MEMORY_DB_URL do not name are started here, with all state in MEMORY_HOME.

    Example: MEMORY_HOME=~/my-memory memory up --embed-workers 2
    """
    settings = read_settings()
    n_workers = embed_workers or n_embed_workers(settings)
    tidy_up_when_stopped()  # until the supervisor heeds the signals itself
    os.umask(0o077)  # memories are their owner's: nobody else reads what is written from here on
    with hold_home(settings.home):
        supervisor = local_stack(settings, n_embed_workers=n_workers, say=_say)

        def on_ready() -> None:
            names = ", ".join(child.name for child in supervisor.children())
            _say(f"ready: {names}; state and logs in {settings.home}")

        _say(f"starting in {settings.home}")
        code = supervisor.run(on_ready=on_ready)
        _say("stopped")
    raise typer.Exit(code)


def _say(message: str) -> None:
    err.print(f"memory up: {message}", markup=False)
