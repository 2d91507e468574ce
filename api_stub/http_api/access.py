"""Who asks, and what they may: keys, scopes, namespaces, and how often."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api_stub.access import Caller, anybody
from api_stub.http_api.problems import Refused
from memory.api_keys import KeyScope
from memory.errors import ServerAway

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from api_stub.http_api.request_count import RequestCount
    from memory.api_keys import ApiKey
    from memory.store.api_keys import ApiKeys

REVOKED_WITHIN_S = 5.0
"""A revoked key may open doors for so long."""

_TRUSTED_IN_AN_OUTAGE_S = 600.0
"""A key that was good before the database went away opens doors for so long without it."""

_MOST_KNOWN = 10_000
_BEARER = HTTPBearer(auto_error=False, description="A key of `memory keys create`.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same, in a header of its own.")


_ANYBODY = anybody("development mode")


class Doorkeeper:
    """Knows keys by their text, and counts their requests."""

    def __init__(self, keys: ApiKeys, requests: RequestCount, *, is_open: bool) -> None:
        self._keys = keys
        self._requests = requests
        self._is_open = is_open
        self._known: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, text: str | None) -> ApiKey:
        """Return the key of this text.

        Raises:
            Refused: there is none, or it has made its requests of this minute.

        """
        if text is None and self._is_open:
            return _ANYBODY
        key = self._find(text) if text else None
        if key is None:
            detail = "a key is needed: Authorization: Bearer mem_…, or X-API-Key"
            if text:
                detail = "this key is unknown or revoked"
            raise Refused(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        wait_s = self._requests.seconds_too_early(key)
        if wait_s:
            detail = f"this key may make {key.requests_a_minute} requests a minute"
            raise Refused(429, "too-many-requests", detail, headers={"Retry-After": str(wait_s)})
        return key

    @staticmethod
    def text_of(headers: Mapping[str, str]) -> str | None:
        """Return the key that a request shows, `None` where it shows none."""
        kind, _, text = headers.get("authorization", "").partition(" ")
        return text.strip() if kind.lower() == "bearer" else headers.get("x-api-key")

    def _find(self, text: str) -> ApiKey | None:
        now = time.monotonic()
        with self._lock:
            seen = self._known.get(text)
        if seen and seen[0] > now:
            return seen[1]
        try:
            key = self._keys.find(text)
        except ServerAway:
            # Handing over needs no database, and nobody can revoke a key without one.
            if seen and now < seen[0] + _TRUSTED_IN_AN_OUTAGE_S:
                return seen[1]
            raise
        with self._lock:
            self._known[text] = now + REVOKED_WITHIN_S, key
            self._known.move_to_end(text)
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return key


def caller(scope: KeyScope | None) -> Callable[..., Caller]:
    """Return the dependency of an endpoint that needs this scope, or just a key."""

    def admitted(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        header: Annotated[str | None, Security(_HEADER)],
    ) -> Caller:
        doorkeeper: Doorkeeper = request.app.state.doorkeeper
        found = Caller(doorkeeper.admit(bearer.credentials if bearer else header))
        if scope is not None:
            found.need(scope)
        return found

    return admitted


Anyone = Annotated[Caller, Depends(caller(None))]
Reader = Annotated[Caller, Depends(caller(KeyScope.READ))]
Writer = Annotated[Caller, Depends(caller(KeyScope.WRITE))]
Admin = Annotated[Caller, Depends(caller(KeyScope.ADMIN))]
