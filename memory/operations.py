"""What became of a hand-over: its receipts, kept for a week so that it can be asked after by one id."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import uuid_utils

from memory.models import Receipt
from memory.redis_client import connect, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATION, _CLAIM = "mem:operation:", "mem:idempotency:"
KEPT_S = 7 * 86_400
"""So long an operation, and the idempotency key that it was made under, are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A hand-over of memories of one namespace."""

    id: str
    namespace: str
    uids: tuple[str, ...]
    """of what was handed over, in order"""
    rejected: tuple[tuple[int, str], ...] = ()
    """position and reason of what was refused, without its value: an erasure does not look here"""
    created_at: datetime

    @property
    def receipts(self) -> list[Receipt]:
        """What can be waited for."""
        return [Receipt(uid=uid, namespace=self.namespace) for uid in self.uids]


class Operations:
    """The operations in one Redis database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    def claim(self, owner: str, key: str, *, digest: str) -> tuple[str, bool]:
        """Return the id of the operation of an idempotency key, and whether it is one of the same request.

        The first caller determines both; a later one, after a crash of the first one too, gets the same id.

        Args:
            owner: whose key it is.
            key: any text.
            digest: of the request.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        mine = json.dumps([new_operation_id(), digest])
        with translated():
            found: Any = self._redis.set(f"{_CLAIM}{owner}:{key}", mine, nx=True, get=True, ex=KEPT_S)
        operation_id, first_digest = json.loads(found or mine)
        return str(operation_id), first_digest == digest

    def save(self, operation: Operation) -> None:
        """Keep an operation; the same one again is harmless.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        data = {**asdict(operation), "created_at": operation.created_at.isoformat()}
        with translated():
            self._redis.set(f"{_OPERATION}{operation.id}", json.dumps(data), ex=KEPT_S)

    def get(self, operation_id: str) -> Operation | None:
        """Return an operation, `None` for one that is unknown, or forgotten by now.

        Raises:
            ServerAway: Redis cannot be reached.

        """
        with translated():
            found: Any = self._redis.get(f"{_OPERATION}{operation_id}")
        return _read(json.loads(found)) if found else None

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def new_operation_id() -> str:
    """Return an id that sorts by time."""
    return str(uuid_utils.uuid7())


def new_operation(operation_id: str, *, namespace: str) -> Operation:
    """Return an operation that has handed over nothing yet."""
    return Operation(id=operation_id, namespace=namespace, uids=(), created_at=datetime.now(UTC))


def _read(data: Mapping[str, Any]) -> Operation:
    operation = Operation(**{**data, "created_at": datetime.fromisoformat(data["created_at"])})
    return replace(
        operation,
        uids=tuple(operation.uids),
        rejected=tuple((int(place), str(reason)) for place, reason in operation.rejected),
    )
