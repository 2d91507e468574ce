"""Follows many accepted memories on their way, looking only at those that are not settled yet."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from memory.models import MemoryState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from memory.models import Outcome, Receipt

    Outcomes = Callable[[Sequence[Receipt]], list[Outcome]]

_WINDOW = 2000


class Follower:
    """Counts by state of the memories given to it. They settle in about the order of their receipts.

    Args:
        outcomes: says how far each of some memories has come, as `PipelineClient.outcomes` does.

    """

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._n_added = 0
        self._open: deque[tuple[int, Receipt]] = deque()  # each with its number, from 0
        self._settled: Counter[MemoryState] = Counter()
        self._window: Counter[MemoryState] = Counter()
        self.dead: list[Outcome] = []

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Follow these too."""
        for receipt in receipts:
            self._open.append((self._n_added, receipt))
            self._n_added += 1

    def look(self) -> None:
        """Look at the oldest that are not settled."""
        while self._open:
            window = [self._open.popleft() for _ in range(min(_WINDOW, len(self._open)))]
            outcomes = self._outcomes([receipt for _, receipt in window])
            self._window = Counter(o.state for o in outcomes if not o.settled)
            self._settled.update(o.state for o in outcomes if o.settled)
            self.dead.extend(o for o in outcomes if o.state is MemoryState.DEAD)
            still_open = [open_ for open_, o in zip(window, outcomes, strict=True) if not o.settled]
            self._open.extendleft(reversed(still_open))
            if self._window:
                return

    @property
    def done(self) -> bool:
        """Whether every memory is searchable, dead or deleted."""
        return not self._open

    @property
    def n_settled_first(self) -> int:
        """How many, counted from the first one given, are settled without a gap."""
        return self._open[0][0] if self._open else self._n_added

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
