"""What a caller may do: the scopes and namespaces of its key, the same over HTTP and MCP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from memory.api_keys import ApiKey, KeyScope
from memory.errors import AccessDenied, NotFound
from memory.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from api_stub.client import MemoryClient
    from memory.models import Memory


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request."""

    key: ApiKey

    def need(self, scope: KeyScope) -> None:
        """Raise AccessDenied unless the key has this scope."""
        if scope not in self.key.scopes:
            raise AccessDenied(f"this key has no scope {scope.value!r}")

    def namespace(self, given: str | None) -> str:
        """Return the namespace of a request: the one given, else the key's only one, else `default`.

        Raises:
            NotFound: it is not one of the key's.

        """
        own = self.key.namespaces
        name = given or (own[0] if own and len(own) == 1 else DEFAULT_NAMESPACE)
        if not self.knows(name):
            raise NotFound(f"no namespace {name!r}")
        return name

    def namespace_if_bound(self, given: str | None) -> str | None:
        """Return the same, but `None`, which is all of them, where none is given to a key of all namespaces.

        Raises:
            NotFound: it is not one of the key's.

        """
        return None if given is None and self.key.namespaces is None else self.namespace(given)

    def knows(self, namespace: str) -> bool:
        """Whether a namespace is one of the key's."""
        return self.key.namespaces is None or namespace in self.key.namespaces

    def sees(self, client: MemoryClient, memory_id: int) -> Memory:
        """Return a memory that is one of the key's.

        Raises:
            NotFound: it is not there, or not one of the key's, which is the same.

        """
        return client.get(memory_id, namespaces=self.key.namespaces)


def anybody(name: str, *, namespaces: tuple[str, ...] | None = None) -> ApiKey:
    """Return what stands for a key where none is asked for: it may do everything, in these namespaces."""
    return ApiKey(
        id="anybody",
        name=name,
        scopes=frozenset(KeyScope),
        namespaces=namespaces,
        requests_a_minute=1,
        created_at=datetime.fromtimestamp(0, UTC),
    )
