"""Any client, awaited: its methods run in threads of their own, so that nothing is written twice."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar, overload

from api_stub.client import MemoryClient
from memory.models import Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from memory.models import Outcome

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 64
"""So many calls are under way at once; a wait holds one."""


def _awaited(
    method: Callable[Concatenate[MemoryClient, P], T],
) -> Callable[Concatenate[AsyncMemoryClient, P], Awaitable[T]]:
    """Return the method that runs this one of the client in a thread."""

    @wraps(method)
    async def call(self: AsyncMemoryClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound: Callable[P, T] = getattr(self.client, method.__name__)
        return await self.run(partial(bound, *args, **kwargs))

    return call


class AsyncMemoryClient:
    """A `MemoryClient` for asyncio: the same methods with the same arguments, each awaited.

    A call that is cancelled is no longer waited for, but what it began goes on: an `enqueue` may have been
    accepted all the same. Give it a uid and call it again.

    Args:
        client: what does the work; it is closed together with this one.

    """

    def __init__(self, client: MemoryClient) -> None:
        self.client = client
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="memory-client")

    @classmethod
    def from_env(cls) -> Self:
        """See `MemoryClient.from_env`."""
        return cls(MemoryClient.from_env())

    @classmethod
    def from_url(cls, url: str, *, key: str | None = None) -> Self:
        """See `MemoryClient.from_url`."""
        return cls(MemoryClient.from_url(url, key=key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for what is under way, then close every connection."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self.client.close)

    async def run(self, call: Callable[[], T]) -> T:
        """Run anything in one of the client's threads, such as a method that only this kind of client has."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    @overload
    async def wait(self, receipts: Receipt, timeout_s: float = ...) -> Outcome: ...
    @overload
    async def wait(self, receipts: Iterable[Receipt], timeout_s: float = ...) -> list[Outcome]: ...
    async def wait(
        self, receipts: Receipt | Iterable[Receipt], timeout_s: float = 30
    ) -> Outcome | list[Outcome]:
        """See `MemoryClient.wait`."""
        if isinstance(receipts, Receipt):
            return await self.run(partial(self.client.wait, receipts, timeout_s))
        return await self.run(partial(self.client.wait, list(receipts), timeout_s))

    enqueue = _awaited(MemoryClient.enqueue)
    enqueue_many = _awaited(MemoryClient.enqueue_many)
    outcomes = _awaited(MemoryClient.outcomes)
    search = _awaited(MemoryClient.search)
    get = _awaited(MemoryClient.get)
    get_by_uid = _awaited(MemoryClient.get_by_uid)
    context = _awaited(MemoryClient.context)
    update = _awaited(MemoryClient.update)
    list_memories = _awaited(MemoryClient.list_memories)
    associate = _awaited(MemoryClient.associate)
    dissociate = _awaited(MemoryClient.dissociate)
    related = _awaited(MemoryClient.related)
    delete = _awaited(MemoryClient.delete)
    cleanup = _awaited(MemoryClient.cleanup)
    counts = _awaited(MemoryClient.counts)
