"""The memories of one producer: what they say, whose they are, how old and how important."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

N_NAMESPACES = 5
_LONG = 0.1
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper", "kelp")
_TYPES = ("episodic", "semantic", "preference", "task")


class Drafts:
    """Drafts under uids of their own. None but a doomed one is both old and unimportant."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.cleanup_namespace = f"cleanup-{number}"
        self._number = number
        self._rng = rng
        self._n_made = 0
        self._n_again = 0

    def new(self) -> dict[str, Any]:
        is_old = self._rng.random() < 0.5
        importance = self._rng.choice((None, self._rng.uniform(0.3, 1) if is_old else self._rng.random()))
        return self._draft(
            namespace=f"space-{self._rng.randrange(N_NAMESPACES)}",
            importance=importance,
            created_at=self._some_time() if is_old else None,
        )

    def doomed(self) -> dict[str, Any]:
        """Return one that a cleanup must take."""
        return self._draft(
            namespace=self.cleanup_namespace,
            importance=self._rng.uniform(0, 0.29),
            created_at=self._some_time(),
        )

    def spared(self) -> dict[str, Any]:
        """Return one that is nearly doomed: important, or young."""
        is_old = self._rng.random() < 0.5
        return self._draft(
            namespace=self.cleanup_namespace,
            importance=self._rng.uniform(0.3, 1) if is_old else 0.1,
            created_at=self._some_time() if is_old else None,
        )

    def again(self, draft: Mapping[str, Any]) -> dict[str, Any]:
        """Return another content under the same uid."""
        self._n_again += 1
        return {**draft, "content": f"{draft['content']}, again {self._n_again}"}

    def words(self) -> str:
        """Return some words; one time in ten so many that they have several windows."""
        n = self._rng.randint(120, 400) if self._rng.random() < _LONG else self._rng.randint(3, 12)
        return " ".join(self._rng.choices(_WORDS, k=n))

    def _draft(self, *, namespace: str, importance: float | None, created_at: str | None) -> dict[str, Any]:
        self._n_made += 1
        uid = f"{self._number}-{self._n_made}"
        metadata: dict[str, Any] = {"revision": 0}
        if importance is not None:
            metadata["importance"] = round(importance, 3)
        draft = {
            "content": f"{uid}: {self.words()}",
            "uid": uid,
            "namespace": namespace,
            "memory_type": self._rng.choice(_TYPES),
            "metadata": metadata,
        }
        return draft if created_at is None else {**draft, "created_at": created_at}

    def _some_time(self) -> str:
        return (_LONG_AGO + timedelta(days=self._rng.uniform(0, 1500))).isoformat()
