"""What an index and its snapshots still hold of memories that are not live any more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.models import Seq

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory.catalogue import Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTraces:
    """What the index's owner found after it let go of everything that is not live, at one event."""

    seq: Seq
    n_in_index: int  # ids in the index or its catalogue that are no live memory's
    n_in_snapshots: int  # the same in each kept snapshot, added up; one that cannot be read counts as one
    n_quarantined: int  # refused snapshots that were deleted

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IndexTraces:
        """Read what `as_json` wrote."""
        return cls(**data)


def n_beyond(live: Ids, *held: Ids | None) -> int:
    """Return how many of the `held` ids are not among `live`. What cannot be read, `None`, counts as one."""
    return sum(1 if ids is None else len(np.setdiff1d(ids, live)) for ids in held)
