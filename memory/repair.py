"""Mends what an audit finds. What it replaces is kept in quarantine; done twice, it finds nothing to do."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from memory.audit import NOT_REPAIRED, Audit, Auditor, Kind, Pace
from memory.store.auditing import Auditing
from memory.unit_vectors import is_usable

if TYPE_CHECKING:
    from memory.database import Database
    from memory.index_sync import IndexSync
    from memory.snapshot import SnapshotFolder
    from memory.store.auditing import StoredVector

log = structlog.get_logger(__name__)

_NO_PAUSE = Pace()

_OF_INDEX = (
    Kind.INDEX_MISSING,
    Kind.INDEX_EXTRA,
    Kind.CATALOGUE_DIFFERENT,
    Kind.WORDS_DIFFERENT,
    Kind.VECTOR_DIFFERENT,
    Kind.EVENTS_MISSING,
)
"""Mended by making the index anew; a snapshot may have held the wrong one, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What was found, what was done about it, where the replaced is kept, and what is left."""

    before: Audit
    done: tuple[str, ...]
    kept: tuple[str, ...]  # paths in the quarantine
    after: Audit

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping: the audit afterwards, and how it came to that."""
        left = {finding.kind: NOT_REPAIRED.get(finding.kind) for finding in self.after.findings}
        return {
            **self.after.as_json(),
            "repair": {
                "found": [finding.as_json() for finding in self.before.findings],
                "done": list(self.done),
                "kept": list(self.kept),
                "not_repaired": [f"{kind.value}: {why or 'found again'}" for kind, why in left.items()],
            },
        }


class Repairer:
    """Mends one database and its index, in the thread of the index's owner.

    Killed at any point, the next run does the rest.

    Args:
        sync: the index, owned.
        database: what it is made of.
        folder: where its snapshots lie.
        auditor: of the same.

    """

    def __init__(
        self, *, sync: IndexSync, database: Database, folder: SnapshotFolder, auditor: Auditor
    ) -> None:
        self._sync = sync
        self._rows = Auditing(database)
        self._folder = folder
        self._auditor = auditor
        self._done: list[str] = []
        self._kept: list[str] = []

    def repair(self, *, pace: Pace = _NO_PAUSE) -> Repair:
        """Audit every vector, mend what is found, and audit again.

        Raises:
            Fenced: another process owns the index now.
            ServerAway: Redis or the database cannot be reached; again does the rest.
            SnapshotFailed: the disk did not take a snapshot; again does the rest.

        """
        self._done, self._kept = [], []
        before = after = self._auditor.audit(pace=pace, every_vector=True)
        if set(NOT_REPAIRED).issuperset(finding.kind for finding in before.findings):
            return Repair(before=before, done=(), kept=(), after=after)
        self._mend_rows(before)
        self._mend_log(before)
        self._mend_index(before)
        pace.pause()
        after = self._auditor.audit(pace=pace, every_vector=True)
        for line in self._done:
            log.warning("repaired", what=line, kept=self._kept)
        return Repair(before=before, done=tuple(self._done), kept=tuple(self._kept), after=after)

    def _mend_rows(self, found: Audit) -> None:
        if dead := found.where(Kind.TOMBSTONE_NOT_EMPTY):
            n = self._rows.empty_tombstones(dead)
            # Not kept: deleted means gone.
            self._done.append(f"emptied {n} tombstones")
        if damaged := found.where(Kind.VECTOR_DAMAGED):
            n = self._rows.send_back(damaged, is_damaged=self._is_damaged, keep=self._keep_vectors)
            self._done.append(f"sent {n} memories back to be embedded again")

    def _mend_log(self, found: Audit) -> None:
        if found.where(Kind.EVENTS_ABOVE_HEAD):
            self._rows.raise_head()
            self._done.append("raised the clock to the newest event")

    def _mend_index(self, found: Audit) -> None:
        is_wrong = bool(found.where(*_OF_INDEX))
        lost = found.where(Kind.SNAPSHOT_LOST)
        bad = self._folder.names() if is_wrong else found.where(Kind.SNAPSHOT_DAMAGED)
        for name in bad:
            self._kept.append(str(self._folder.quarantine(name)))
            self._done.append(f"moved snapshot {name} to the quarantine")
        if is_wrong:
            self._sync.rebuild("an audit found a difference")
            self._done.append("made the index anew from the rows and saved it")
        elif bad or lost:
            self._sync.save_snapshot()
            self._done.append("saved the index")
        if found.where(Kind.EVENTS_MISSING):
            self._rows.drop_saved_events()
            self._done.append("dropped the events up to that snapshot")

    def _is_damaged(self, row: StoredVector) -> bool:
        identity = self._sync.identity
        whole = row.embedding is not None and is_usable(row.embedding, dim=identity.dim)
        return not whole or row.model_fingerprint != identity.model_fingerprint

    def _keep_vectors(self, rows: list[StoredVector]) -> None:
        lines = (
            json.dumps(
                {
                    "memory_id": row.memory_id,
                    "model_fingerprint": row.model_fingerprint,
                    "embedding": base64.b64encode(row.embedding or b"").decode(),
                }
            )
            for row in rows
        )
        self._kept.append(str(self._folder.keep_aside("vectors.jsonl", "\n".join(lines).encode())))
