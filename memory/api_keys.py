"""Keys of the HTTP API: what a key looks like, and what it may do."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from memory.errors import InvalidMemory
from memory.validation import check_name, check_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_REQUESTS_A_MINUTE = 600
_MOST_REQUESTS_A_MINUTE = 1_000_000
_SECRET_BYTES = 32
_ID_BYTES = 6
_KEY = re.compile(r"mem_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class KeyScope(StrEnum):
    """What a key may do. None includes another."""

    READ = "read"  # get, list, search
    WRITE = "write"  # create, change, delete, link
    ADMIN = "admin"  # clean up, erase, count


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its secret."""

    id: str
    name: str
    scopes: frozenset[KeyScope]
    namespaces: tuple[str, ...] | None
    """only these; `None` for all"""
    requests_a_minute: int
    created_at: datetime
    revoked_at: datetime | None = None

    def may(self, scope: KeyScope, namespace: str) -> bool:
        """Whether it may do this with memories of a namespace."""
        return scope in self.scopes and (self.namespaces is None or namespace in self.namespaces)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(scope.value for scope in self.scopes),
            "namespaces": None if self.namespaces is None else list(self.namespaces),
            "requests_a_minute": self.requests_a_minute,
            "created_at": self.created_at.isoformat(),
            "revoked_at": self.revoked_at.isoformat() if self.revoked_at else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ApiKey:
        """Read what `as_json` wrote."""
        namespaces, revoked_at = data["namespaces"], data["revoked_at"]
        read = {
            "scopes": frozenset(KeyScope(scope) for scope in data["scopes"]),
            "namespaces": None if namespaces is None else tuple(namespaces),
            "created_at": datetime.fromisoformat(data["created_at"]),
            "revoked_at": datetime.fromisoformat(revoked_at) if revoked_at else None,
        }
        return cls(**{**data, **read})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDraft:
    """What a new key is to be. Make one with `key_draft`."""

    name: str
    scopes: frozenset[KeyScope]
    namespaces: tuple[str, ...] | None
    requests_a_minute: int


def key_draft(
    *,
    name: object,
    scopes: Iterable[str],
    namespaces: Iterable[str] | None,
    requests_a_minute: object = DEFAULT_REQUESTS_A_MINUTE,
) -> KeyDraft:
    """Return a checked draft.

    Raises:
        InvalidMemory: names what is not allowed, its value, and what is.

    """
    known = {scope.value: scope for scope in KeyScope}
    wanted = list(scopes)
    for scope in wanted:
        if scope not in known:
            raise InvalidMemory(field="scope", value=scope, allowed="one of " + ", ".join(known))
    if not wanted:
        raise InvalidMemory(field="scopes", value=wanted, allowed="at least one of " + ", ".join(known))
    chosen = None if namespaces is None else tuple(sorted({check_name("namespace", n) for n in namespaces}))
    if chosen == ():
        raise InvalidMemory(field="namespaces", value=chosen, allowed="at least one, or all")
    return KeyDraft(
        name=check_name("name", name),
        scopes=frozenset(known[scope] for scope in wanted),
        namespaces=chosen,
        requests_a_minute=check_whole(
            "requests_a_minute", requests_a_minute, low=1, high=_MOST_REQUESTS_A_MINUTE
        ),
    )


def new_key() -> tuple[str, str, bytes]:
    """Return a new key's id, the key itself, which is shown once, and the hash of its secret."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    return key_id, f"mem_{key_id}_{secret}", hash_of(secret)


def parts_of(key: str) -> tuple[str, str] | None:
    """Return the id and the secret of what looks like a key."""
    match = _KEY.fullmatch(key)
    return (match[1], match[2]) if match else None


def hash_of(secret: str) -> bytes:
    """Return SHA-256 of a secret. It has 256 random bits: no slower hash would make it safer."""
    return hashlib.sha256(secret.encode()).digest()
