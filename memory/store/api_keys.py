"""SQL on the keys of the HTTP API."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from memory.api_keys import ApiKey, KeyScope, hash_of, new_key, parts_of
from memory.database import database_now
from memory.errors import NotFound
from memory.schema import api_keys
from memory.store.rows import chunks

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Row

    from memory.api_keys import KeyDraft
    from memory.database import Database

_NO_HASH = bytes(32)


class ApiKeys:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, draft: KeyDraft) -> tuple[ApiKey, str]:
        """Make a key; return it, and the text that opens the door: it is kept nowhere.

        Raises:
            ServerAway: the database cannot be reached.

        """
        key_id, key, secret_hash = new_key()
        with self._database.write() as connection:
            row = connection.execute(
                api_keys.insert()
                .values(
                    id=key_id,
                    name=draft.name,
                    secret_hash=secret_hash,
                    scopes=sorted(scope.value for scope in draft.scopes),
                    namespaces=None if draft.namespaces is None else list(draft.namespaces),
                    requests_a_minute=draft.requests_a_minute,
                    created_at=database_now(connection),
                )
                .returning(api_keys)
            ).one()
        return _key_of(row), key

    def live(self, ids: Collection[str]) -> set[str]:
        """Return those of these ids whose keys still open something.

        Raises:
            ServerAway: the database cannot be reached.

        """
        statement = select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            return {
                found
                for some in chunks(sorted(ids))
                for found in connection.scalars(statement.where(api_keys.c.id.in_(some)))
            }

    def find(self, key: str) -> ApiKey | None:
        """Return the key that this text is, `None` for one that is unknown or revoked.

        It takes as long for a wrong secret as for the right one.
        """
        parts = parts_of(key)
        if parts is None:
            return None
        key_id, secret = parts
        with self._database.read() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        is_right = hmac.compare_digest(row.secret_hash if row else _NO_HASH, hash_of(secret))
        return _key_of(row) if row and is_right and row.revoked_at is None else None

    def list(self) -> list[ApiKey]:
        """Return all keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
            return [_key_of(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """Let a key open nothing any more; again is harmless.

        Raises:
            NotFound: there is no such key.

        """
        with self._database.write() as connection:
            connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=database_now(connection))
            )
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        if row is None:
            message = f"no key with id {key_id!r}"
            raise NotFound(message)
        return _key_of(row)


def _key_of(row: Row[*tuple[Any, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(KeyScope(scope) for scope in row.scopes),
        namespaces=None if row.namespaces is None else tuple(row.namespaces),
        requests_a_minute=row.requests_a_minute,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
