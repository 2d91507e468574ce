"""Follows many accepted memories on their way, looking only at those that are not settled yet."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from memory.models import MemoryState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api_stub.client import MemoryClient
    from memory.models import Outcome, Receipt

_WINDOW = 2000


class Follower:
    """Counts by state of the memories given to it. They settle in about the order of their receipts."""

    def __init__(self, client: MemoryClient) -> None:
        self._client = client
        self._open: deque[Receipt] = deque()
        self._settled: Counter[MemoryState] = Counter()
        self._window: Counter[MemoryState] = Counter()
        self.dead: list[Outcome] = []

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Follow these too."""
        self._open.extend(receipts)

    def look(self) -> None:
        """Look at the oldest that are not settled."""
        while self._open:
            window = [self._open.popleft() for _ in range(min(_WINDOW, len(self._open)))]
            outcomes = self._client.outcomes(window)
            self._window = Counter(o.state for o in outcomes if not o.settled)
            self._settled.update(o.state for o in outcomes if o.settled)
            self.dead.extend(o for o in outcomes if o.state is MemoryState.DEAD)
            self._open.extendleft(reversed([o.receipt for o in outcomes if not o.settled]))
            if self._window:
                return

    @property
    def done(self) -> bool:
        """Whether every memory is searchable, dead or deleted."""
        return not self._open

    @property
    def n_accepted(self) -> int:
        """How many there are."""
        return self._settled.total() + len(self._open)

    @property
    def n_stored(self) -> int:
        """How many are known to be stored, searchable or not. Deleted ones have been."""
        return self.n_searchable + self._window[MemoryState.STORED] + self._settled[MemoryState.DELETED]

    @property
    def n_searchable(self) -> int:
        """How many are known to be searchable."""
        return self._settled[MemoryState.SEARCHABLE]

    @property
    def n_dead(self) -> int:
        """How many became dead letters."""
        return self._settled[MemoryState.DEAD]

    @property
    def n_unsettled(self) -> int:
        """How many are still on their way."""
        return len(self._open)

    @property
    def n_moved(self) -> int:
        """Changes whenever one of them comes further."""
        return 2 * self._settled.total() + self._window[MemoryState.STORED]
