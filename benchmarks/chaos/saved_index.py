"""The index as a clean stop left it on disk, against the rows as they were just before: every byte."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.chaos.examination import Findings
from memory.database import Database
from memory.errors import IndexRefused
from memory.models import Identity
from memory.settings import Settings
from memory.snapshot import SnapshotFolder
from memory.store.event_log import EventLog
from memory.store.vectors import iterate_vectors
from memory.window_index import Parts

_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What the index must hold: each live row's embedding by id, and the newest event."""

    by_id: dict[int, bytes]
    head: int
    identity: Identity


def read_embeddings(database: Database) -> Embeddings:
    """Read every embedding once."""
    by_id: dict[int, bytes] = {}
    with database.snapshot() as connection:
        for rows in iterate_vectors(connection, page=_PAGE):
            by_id.update((row.memory_id, row.embedding) for row in rows)
    log = EventLog(database)
    identity = log.identity()
    assert identity is not None
    return Embeddings(by_id, log.head(), identity)


def compare_with_saved(settings: Settings, expected: Embeddings, findings: Findings) -> Counter[int]:
    """Load the newest snapshot as the indexer would; return how often it holds each id."""
    try:
        _, saved = SnapshotFolder(settings.index_directory).load(expected.identity)
    except IndexRefused as refusal:
        findings.add("drifted", f"the snapshot of a clean stop is refused: {refusal}")
        return Counter(dict.fromkeys(expected.by_id, 1))
    if saved.applied_seq != expected.head:
        findings.add("drifted", f"the snapshot is of event {saved.applied_seq}, the head is {expected.head}")
    ids, counts = np.unique(saved.index.ids(), return_counts=True)
    common = [int(i) for i in ids if int(i) in expected.by_id]
    for start in range(0, len(common), _PAGE):
        some = common[start : start + _PAGE]
        rows, row_bytes = [expected.by_id[i] for i in some], 4 * saved.index.dim
        vectors = np.frombuffer(b"".join(rows), dtype="<f4").reshape(-1, saved.index.dim)
        parts = Parts.of(vectors, np.array([len(row) // row_bytes for row in rows], dtype=np.int64))
        agree = saved.index.agree(some, parts.firsts) & saved.windows.agree(np.asarray(some), parts)
        for memory_id in np.asarray(some)[~agree]:
            findings.add("drifted", f"id {memory_id}: other vectors than its row's")
    for memory_id in np.setdiff1d(saved.windows.owners(), common):
        findings.add("drifted", f"id {memory_id}: windows of a memory that is not live")
    return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
