"""What else than relevance counts: how new, how important, how lately used it is. All off by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory.models import NEUTRAL_IMPORTANCE, ScoreTerm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from memory.models import Memory

DEFAULT_HALF_LIFE_DAYS = 30.0
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosts:
    """How much each counts, 0..1: 0 is not at all.

    A score is multiplied by 1 - w (1 - s) for each weight w that is set, with s in 0..1:

    - recency: 2 to the power of -age / half-life, by `created_at`;
    - importance: the memory's, .5 where it has none;
    - access: as recency, by `last_access_at`; 0 where it was never found.

    No factor exceeds 1, so nothing lifts what is not relevant. A score that is not above 0 stays as it is.
    """

    recency: float = 0.0
    importance: float = 0.0
    access: float = 0.0
    half_life_days: float = DEFAULT_HALF_LIFE_DAYS
    now: datetime

    def terms(self, memory: Memory) -> dict[str, ScoreTerm]:
        """Return s and w of each that counts."""
        found = {}
        if self.recency:
            found["recency"] = ScoreTerm(self._freshness(memory.created_at), self.recency)
        if self.importance:
            known = memory.importance
            found["importance"] = ScoreTerm(NEUTRAL_IMPORTANCE if known is None else known, self.importance)
        if self.access:
            found["access"] = ScoreTerm(self._freshness(memory.last_access_at), self.access)
        return found

    def _freshness(self, instant: datetime | None) -> float:
        if instant is None:
            return 0.0
        age_days = max((self.now - instant).total_seconds() / _DAY_S, 0.0)
        return float(2 ** -min(age_days / self.half_life_days, 1000.0))


def boosted(score: float, terms: Mapping[str, ScoreTerm]) -> float:
    """Return a score with these boosts."""
    if score <= 0:
        return score
    for term in terms.values():
        score *= 1 - term.weight * (1 - term.value)
    return score
