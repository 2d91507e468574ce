"""Cursors: where the next page of a search begins."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memory.errors import InvalidMemory
from memory.models import MemoryId


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Behind which hit a page begins: by score, best first, then by id.

    So what was stored or deleted between two pages does not shift the next one, as counting would.
    """

    score: float
    memory_id: MemoryId
    rank: int  # from 1, over all pages
    digest: str  # of the search it belongs to
    now: datetime  # of the first page: ages are counted from it

    def __str__(self) -> str:
        """Return the text that `read_cursor` reads back; nothing is said of what is in it."""
        values = [self.score.hex(), self.memory_id, self.rank, self.digest, self.now.isoformat()]
        return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")

    def is_before(self, score: float, memory_id: MemoryId) -> bool:
        """Whether a hit comes behind it."""
        return (-score, memory_id) > (-self.score, self.memory_id)


def read_cursor(value: object, *, digest: str) -> Cursor:
    """Return the cursor in a text, if it belongs to the same search.

    Raises:
        InvalidMemory: it is no cursor, or another search's.

    """
    try:
        padded = str(value) + "=" * (-len(str(value)) % 4)
        found: list[Any] = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        score, memory_id, rank, of_search, now = found
        cursor = Cursor(
            score=float.fromhex(score),
            memory_id=MemoryId(int(memory_id)),
            rank=int(rank),
            digest=str(of_search),
            now=datetime.fromisoformat(now),
        )
    except (TypeError, ValueError, AttributeError, binascii.Error, OverflowError):
        raise InvalidMemory(field="after", value=value, allowed="a hit's cursor") from None
    if cursor.digest != digest:
        raise InvalidMemory(field="after", value=value, allowed="a cursor of the same search")
    return cursor
