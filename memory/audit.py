"""Looks for what should never be: in the index, the snapshots, the rows, the events, on the streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import IndexRefused
from memory.index_comparison import SAMPLED_VECTORS
from memory.store.auditing import Auditing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from memory.database import Database
    from memory.index_comparison import Comparison, Differences
    from memory.index_follower import IndexFollower
    from memory.settings import Settings
    from memory.snapshot import SnapshotFolder
    from memory.stream_watch import StreamWatch

PENDING_TOO_LONG = timedelta(hours=1)
"""Memories without an embedding are put on the stream again every few minutes."""

LEFT_BEHIND_FACTOR = 5
"""Times MEMORY_RECLAIM_AFTER_S: by then any embed worker has taken over what another one left."""


class Kind(StrEnum):
    """What an audit can find."""

    INDEX_MISSING = "index_missing"
    INDEX_EXTRA = "index_extra"
    CATALOGUE_DIFFERENT = "catalogue_different"
    VECTOR_DIFFERENT = "vector_different"
    WORDS_DIFFERENT = "words_different"
    VECTOR_DAMAGED = "vector_damaged"
    SNAPSHOT_DAMAGED = "snapshot_damaged"
    SNAPSHOT_LOST = "snapshot_lost"
    EVENTS_MISSING = "events_missing"
    EVENTS_ABOVE_HEAD = "events_above_head"
    TOMBSTONE_NOT_EMPTY = "tombstone_not_empty"
    ENTRY_LEFT_BEHIND = "entry_left_behind"
    ENTRY_DELIVERED_TOO_OFTEN = "entry_delivered_too_often"
    PENDING_TOO_LONG = "pending_too_long"


MEANS = {
    Kind.INDEX_MISSING: "memories that the index lacks",
    Kind.INDEX_EXTRA: "vectors in the index without a live memory",
    Kind.CATALOGUE_DIFFERENT: "memories whose line in the index's catalogue is missing or wrong",
    Kind.VECTOR_DIFFERENT: "vectors in the index that are not those of the database",
    Kind.WORDS_DIFFERENT: "memories whose words in the index are missing, or not those of the database",
    Kind.VECTOR_DAMAGED: "rows whose vector is damaged, or of another model",
    Kind.SNAPSHOT_DAMAGED: "snapshots on the disk that are not what was saved",
    Kind.SNAPSHOT_LOST: "snapshots named as the current one that are not on the disk",
    Kind.EVENTS_MISSING: "index events that are gone before they were saved",
    Kind.EVENTS_ABOVE_HEAD: "index events beyond the clock",
    Kind.TOMBSTONE_NOT_EMPTY: "deleted memories with something left of them",
    Kind.ENTRY_LEFT_BEHIND: "stream entries that nobody acknowledges",
    Kind.ENTRY_DELIVERED_TOO_OFTEN: "stream entries delivered more often than MEMORY_MAX_DELIVERIES",
    Kind.PENDING_TOO_LONG: "stored memories without an embedding for over an hour",
}

NOT_REPAIRED = {
    Kind.ENTRY_LEFT_BEHIND: "an embed worker takes them over by itself: is one running?",
    Kind.ENTRY_DELIVERED_TOO_OFTEN: "an embed worker makes them dead letters by itself: is one running?",
    Kind.PENDING_TOO_LONG: "the maintenance tick lets them be embedded: do beat and an embed worker run?",
}
"""What no repair mends, and what does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of damage and its places: ids of memories, numbers of events, names of snapshots."""

    kind: Kind
    where: tuple[int | str, ...]

    @property
    def said(self) -> str:
        """How many of what."""
        return f"{len(self.where)} {MEANS[self.kind]}"

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, with the first ten places."""
        return {
            "kind": self.kind.value,
            "n": len(self.where),
            "means": MEANS[self.kind],
            "examples": list(self.where[:10]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found, and the index against the database in numbers."""

    comparison: Comparison
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings

    @property
    def summary(self) -> str:
        """Every finding in words."""
        return ", ".join(finding.said for finding in self.findings) or "nothing"

    def where(self, *kinds: Kind) -> list[Any]:
        """Return the places of these kinds."""
        return [place for finding in self.findings if finding.kind in kinds for place in finding.where]

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            **self.comparison.as_json(),
            "clean": self.clean,
            "summary": self.summary,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a long audit leaves room for the rest of its thread's work."""

    pause: Callable[[], None] = lambda: None
    """Called between two steps. There the index may be changed."""

    on_progress: Callable[[], None] = lambda: None
    """Called within a step, often. There it may not."""


_NO_PAUSE = Pace()


class Auditor:
    """Audits the index of one database, in the thread of its owner. Searches go on meanwhile.

    Args:
        index: what is audited.
        database: what the index is made of.
        folder: where its snapshots lie.
        watch: the streams; `None` where there are none.
        settings: what counts as left behind.
        rng: chooses the sampled vectors: another audit looks at others.

    """

    def __init__(
        self,
        *,
        index: IndexFollower,
        database: Database,
        folder: SnapshotFolder,
        watch: StreamWatch | None,
        settings: Settings,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._index = index
        self._rows = Auditing(database)
        self._folder = folder
        self._watch = watch
        self._settings = settings
        self._rng = rng or np.random.default_rng()

    def audit(self, *, pace: Pace = _NO_PAUSE, every_vector: bool = False) -> Audit:
        """Look at everything.

        Args:
            pace: of this run.
            every_vector: compare all of them byte by byte, not a sample.

        Raises:
            ModelMismatch: the database's vectors were replaced by another model's.
            ServerAway: Redis or the database cannot be reached.

        """
        differences = self._index.differences(
            n_sampled=None if every_vector else SAMPLED_VECTORS, rng=self._rng, on_progress=pace.on_progress
        )
        pace.pause()
        found = [
            *_in_index(differences),
            *self._in_log(),
            *self._in_snapshots(pace.pause),
            *self._in_rows(pace.pause),
            *self._on_streams(),
        ]
        return Audit(comparison=differences.summed_up(), findings=_merged(found))

    def _in_log(self) -> Iterator[Finding]:
        defects = self._rows.log()
        yield _finding(Kind.EVENTS_MISSING, defects.missing.tolist())
        yield _finding(Kind.EVENTS_ABOVE_HEAD, defects.above_head.tolist())

    def _in_snapshots(self, pause: Callable[[], None]) -> Iterator[Finding]:
        names = self._folder.names()
        current = self._folder.current()
        yield _finding(Kind.SNAPSHOT_LOST, [current] if current and current not in names else [])
        for name in names:
            if name not in self._folder.names():
                continue  # a newer one was saved in a pause, and this one is not kept any more
            try:
                self._folder.check(name)
            except IndexRefused:
                yield _finding(Kind.SNAPSHOT_DAMAGED, [name])
            pause()

    def _in_rows(self, pause: Callable[[], None]) -> Iterator[Finding]:
        defects = self._rows.rows(dim=self._index.identity.dim, pending_since=PENDING_TOO_LONG, pause=pause)
        damaged = {*defects.without_vector, *defects.of_another_model}
        dead = {*defects.full_tombstones, *defects.linked_tombstones, *defects.embedded_tombstones}
        yield _finding(Kind.VECTOR_DAMAGED, sorted(damaged))
        yield _finding(Kind.TOMBSTONE_NOT_EMPTY, sorted(dead))
        yield _finding(Kind.PENDING_TOO_LONG, defects.pending_too_long)

    def _on_streams(self) -> Iterator[Finding]:
        if self._watch is None:
            return
        idle, often = self._watch.left_behind(
            idle_s=self._settings.reclaim_after_s * LEFT_BEHIND_FACTOR,
            n_deliveries=self._settings.max_deliveries,
        )
        yield _finding(Kind.ENTRY_LEFT_BEHIND, [f"{p.lane}:{p.stream_id}" for p in idle])
        yield _finding(Kind.ENTRY_DELIVERED_TOO_OFTEN, [f"{p.lane}:{p.stream_id}" for p in often])


def _in_index(found: Differences) -> Iterator[Finding]:
    damaged = found.damaged
    misplaced = np.union1d(found.uncatalogued, found.misplaced)
    yield _finding(Kind.INDEX_MISSING, np.setdiff1d(found.missing, damaged).tolist())
    yield _finding(Kind.INDEX_EXTRA, found.extra.tolist())
    yield _finding(Kind.CATALOGUE_DIFFERENT, misplaced.tolist())
    yield _finding(Kind.VECTOR_DIFFERENT, np.setdiff1d(found.different, damaged).tolist())
    yield _finding(Kind.WORDS_DIFFERENT, np.union1d(found.wordless, found.misworded).tolist())
    yield _finding(Kind.VECTOR_DAMAGED, damaged.tolist())


def _finding(kind: Kind, where: Sequence[int | str]) -> Finding:
    return Finding(kind=kind, where=tuple(where))


def _merged(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return one finding for each kind that was found anywhere, without doubles."""
    places: dict[Kind, dict[int | str, None]] = {}
    for finding in found:
        places.setdefault(finding.kind, {}).update(dict.fromkeys(finding.where))
    return tuple(Finding(kind=kind, where=tuple(places[kind])) for kind in Kind if places.get(kind))
