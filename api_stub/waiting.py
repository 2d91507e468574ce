"""Waits for many at once, without a thread for each: looks again and again, ever more seldom."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.to_thread import run_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from api_stub.client import MemoryClient
    from memory.models import Outcome, Receipt

T = TypeVar("T")

FIRST_LOOK_S = 0.003
LOOK_EVERY_S = 0.25


async def look_until(
    look: Callable[[], T],
    is_enough: Callable[[T], bool],
    *,
    timeout_s: float,
    is_alone: Callable[[], Awaitable[bool]] | None = None,
) -> T:
    """Return what `look` returned last: what is enough, or whatever it was when the time was over.

    Args:
        look: runs in a thread each time.
        is_enough: whether to stop.
        timeout_s: at most so long; with 0 it looks once.
        is_alone: whether nobody waits for the answer any more.

    """
    deadline = anyio.current_time() + timeout_s
    pause_s = FIRST_LOOK_S
    while True:
        found = await run_sync(look)
        left_s = deadline - anyio.current_time()
        if left_s <= 0 or is_enough(found) or (is_alone is not None and await is_alone()):
            return found
        await anyio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LOOK_EVERY_S)


async def settled(
    client: MemoryClient,
    receipts: Sequence[Receipt],
    *,
    timeout_s: float,
    is_alone: Callable[[], Awaitable[bool]] | None = None,
) -> list[Outcome]:
    """Do what `MemoryClient.wait` does."""
    return await look_until(
        lambda: client.outcomes(receipts),
        lambda found: all(outcome.settled for outcome in found),
        timeout_s=timeout_s,
        is_alone=is_alone,
    )
