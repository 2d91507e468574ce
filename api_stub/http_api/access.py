"""Who asks, and what they may: keys, scopes, namespaces, and how often."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from api_stub.access import Caller, anybody
from api_stub.http_api.problems import Refused
from memory.api_keys import KeyScope
from memory.errors import ServerAway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from api_stub.http_api.request_count import RequestCount
    from memory.api_keys import ApiKey
    from memory.store.api_keys import ApiKeys

REVOKED_WITHIN_S = 5.0
"""A revoked key may open doors for so long."""

_TRUSTED_IN_AN_OUTAGE_S = 600.0
"""A key that was good when the database went away opens doors for so long without it."""

LOOK_EVERY_S = 2.0
_MOST_KNOWN = 10_000
SHOWS_KEY = [
    Security(HTTPBearer(auto_error=False, description="A key of `memory keys create`.")),
    Security(
        APIKeyHeader(name="X-API-Key", auto_error=False, description="The same, in a header of its own.")
    ),
]
"""What the OpenAPI says of an endpoint that needs a key."""

KEY = "memory.api_key"
"""Where an admitted request carries its `ApiKey`."""

_ANYBODY = anybody("development mode")


@dataclass(slots=True)
class _Seen:
    key: ApiKey
    at: float


class Doorkeeper:
    """Knows good keys by their text, and counts their requests, in one event loop.

    Run `keep_watch` beside it: it looks at every known key again and again, so that when the database goes
    away each has just been looked at, and may be trusted for a while without one.
    """

    def __init__(self, keys: ApiKeys, requests: RequestCount, *, is_open: bool) -> None:
        self._keys = keys
        self._requests = requests
        self._is_open = is_open
        self._known: OrderedDict[str, _Seen] = OrderedDict()

    async def admit(self, text: str | None) -> ApiKey:
        """Return the key of this text.

        Raises:
            Refused: there is none, or it has made its requests of this minute.
            ServerAway: it is not known, and the database cannot be asked.

        """
        if text is None and self._is_open:
            return _ANYBODY
        key = await self._find(text) if text else None
        if key is None:
            detail = "a key is needed: Authorization: Bearer mem_…, or X-API-Key"
            if text:
                detail = "this key is unknown or revoked"
            raise Refused(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        wait_s = await self._requests.seconds_too_early(key)
        if wait_s:
            detail = f"this key may make {key.requests_a_minute} requests a minute"
            raise Refused(429, "too-many-requests", detail, headers={"Retry-After": str(wait_s)})
        return key

    async def keep_watch(self) -> None:
        """Look at every known key again and again, until cancelled."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            with suppress(ServerAway):  # they are trusted for a while
                await self._look()

    @staticmethod
    def text_of(headers: Mapping[str, str]) -> str | None:
        """Return the key that a request shows, `None` where it shows none."""
        kind, _, text = headers.get("authorization", "").partition(" ")
        bearer = text.strip() if kind.lower() == "bearer" else ""
        return bearer or headers.get("x-api-key")

    async def _find(self, text: str) -> ApiKey | None:
        now = time.monotonic()
        seen = self._known.get(text)
        if seen and now < seen.at + REVOKED_WITHIN_S:
            return seen.key
        try:
            key = await run_sync(self._keys.find, text)
        except ServerAway:
            # Handing over needs no database, and nobody can revoke a key without one.
            if seen and now < seen.at + _TRUSTED_IN_AN_OUTAGE_S:
                return seen.key
            raise
        if key is None:  # not kept: whoever guesses would fill the memory
            self._known.pop(text, None)
            return None
        self._known[text] = _Seen(key, now)
        self._known.move_to_end(text)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return key

    async def _look(self) -> None:
        if not self._known:
            return
        now = time.monotonic()
        live = await run_sync(self._keys.live, {seen.key.id for seen in self._known.values()})
        for text, seen in list(self._known.items()):
            if seen.key.id in live:
                seen.at = max(seen.at, now)
            else:
                del self._known[text]


def caller(scope: KeyScope | None) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency of an endpoint that needs this scope, or just a key."""

    async def admitted(request: Request) -> Caller:
        found = Caller(request.scope[KEY])
        if scope is not None:
            found.need(scope)
        return found

    return admitted


Anyone = Annotated[Caller, Depends(caller(None))]
Reader = Annotated[Caller, Depends(caller(KeyScope.READ))]
Writer = Annotated[Caller, Depends(caller(KeyScope.WRITE))]
Admin = Annotated[Caller, Depends(caller(KeyScope.ADMIN))]
