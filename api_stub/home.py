"""The running stack of a MEMORY_HOME: where it says so, and how others find it."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from memory.errors import NoStack
from memory.file_lock import FileLock
from memory.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = "up.lock"
_STACK = "stack.json"
_LOOKING_TAKES_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """What a running `memory up` tells the other commands. The URLs hold passwords."""

    pid: int
    redis_url: str
    db_url: str
    ready: bool


@contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Be the one stack of this home until the end of the block, or of the process, however it ends.

    Raises:
        NoStack: another stack runs here.

    """
    lock = FileLock(home / _LOCK)
    try:
        if not _acquire_soon(lock):
            message = (
                f"a stack is running in MEMORY_HOME = {home} already: stop it first (Ctrl-C where it runs)"
            )
            raise NoStack(message)
        (home / _STACK).unlink(missing_ok=True)
        try:
            yield
        finally:
            (home / _STACK).unlink(missing_ok=True)
    finally:
        lock.release()


def announce(home: Path, stack: RunningStack) -> None:
    """Say where the stack is. Readable by its owner only."""
    temporary = home / f"{_STACK}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(stack), file)
    temporary.rename(home / _STACK)


def running_stack(home: Path) -> RunningStack | None:
    """Return what the stack of this home says, `None` where none runs."""
    try:
        if not (home / _STACK).exists() or _is_free(home / _LOCK):
            return None  # nobody holds the lock: whoever wrote the file is gone
        return RunningStack(**json.loads((home / _STACK).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def holds_stack(home: Path) -> bool:
    """Whether the state of a stack lies here, running or not."""
    return any((home / name).exists() for name in (_LOCK, "redis", "postgres"))


def connected_settings() -> Settings:
    """Return settings with both URLs: from the environment, else from the running stack.

    Raises:
        SettingsError: a setting has a bad value.
        NoStack: no stack runs in MEMORY_HOME, and the environment does not name both servers.

    """
    settings = read_settings()
    if settings.redis_url and settings.db_url:
        return settings
    stack = running_stack(settings.home)
    if stack and settings.db_url and read_settings(db_url=stack.db_url).db_url != settings.db_url:
        message = f"MEMORY_DB_URL names another database than the stack in MEMORY_HOME = {settings.home} uses"
        raise NoStack(message)
    if stack is None or not stack.ready:
        what = "a stack is still starting" if stack else "no stack runs"
        message = (
            f"{what} in MEMORY_HOME = {settings.home}. Start one with `memory up` "
            "(in another terminal, with the same MEMORY_HOME), or set REDIS_URL and MEMORY_DB_URL"
        )
        raise NoStack(message)
    return settings.model_copy(
        update={"redis_url": settings.redis_url or stack.redis_url, "db_url": settings.db_url or stack.db_url}
    )


def database_settings() -> Settings:
    """Return settings with the database's URL: MEMORY_DB_URL, else that of the running stack. Asks no server.

    Raises:
        SettingsError: a setting has a bad value.
        NoStack: neither is there; says how to have one.

    """
    settings = read_settings()
    if settings.db_url:
        return settings
    stack = running_stack(settings.home)
    if stack is None:
        message = (
            f"which database? MEMORY_DB_URL is not set, and no stack runs in MEMORY_HOME = {settings.home}. "
            "Set MEMORY_DB_URL (postgresql://… or sqlite:///…), or start a stack with `memory up`"
        )
        raise NoStack(message)
    return settings.model_copy(update={"db_url": stack.db_url})


def _acquire_soon(lock: FileLock) -> bool:
    """Try for a moment: whoever looks whether a stack runs holds the lock while it looks."""
    deadline = time.monotonic() + _LOOKING_TAKES_S
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_free(path: Path) -> bool:
    lock = FileLock(path)
    try:
        return lock.try_acquire()
    finally:
        lock.release()
