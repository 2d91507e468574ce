"""What can happen to a saved index, or to the database beneath it, while no indexer runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import delete, select, update

from memory.database import Database
from memory.schema import index_clock, index_events, memories
from memory.snapshot import SnapshotFolder
from memory.store.event_log import EventLog, read_head

N_LATER = 5
"""What the backup of the database does not have."""


@dataclass(frozen=True)
class Scene:
    """A saved index, the database, and a copy of the index from before events were pruned."""

    folder: SnapshotFolder
    database: Database
    old_copy: Path

    def file(self, name: str) -> Path:
        """A file of the current snapshot."""
        return self.folder.directory / "snapshots" / str(self.folder.current()) / name

    def save_as(self, **other: object) -> None:
        """Save the current snapshot again as another model's would be."""
        identity = EventLog(self.database).identity()
        assert identity is not None
        _, content = self.folder.load(identity)
        self.folder.save(content, replace(identity, **other))  # type: ignore[arg-type]


def copy_index(folder: SnapshotFolder, target: Path) -> None:
    """Keep a copy of the saved index, as a backup does."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder.directory, target, ignore=shutil.ignore_patterns("owner.lock", "quarantine"))


def _flip_a_bit(scene: Scene) -> None:
    path = scene.file("vectors.faiss")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def _cut_short(scene: Scene) -> None:
    path = scene.file("catalogue.npz")
    os.truncate(path, path.stat().st_size // 2)


def _put_the_old_copy_back(scene: Scene) -> None:
    shutil.rmtree(scene.folder.directory / "snapshots")
    shutil.copytree(scene.old_copy, scene.folder.directory, dirs_exist_ok=True)


def restore_an_older_database(scene: Scene) -> None:
    """As it was before the newest memories were stored."""
    with scene.database.write() as connection:
        head = read_head(connection) - N_LATER
        later = select(index_events.c.memory_id).where(index_events.c.seq > head)
        connection.execute(delete(memories).where(memories.c.id.in_(later)))
        connection.execute(delete(index_events).where(index_events.c.seq > head))
        connection.execute(update(index_clock).values(head=head))


DAMAGES: dict[str, tuple[Callable[[Scene], object], str]] = {
    "a bit flipped": (_flip_a_bit, "vectors.faiss does not have the checksum of its manifest"),
    "a file cut short": (_cut_short, "catalogue.npz does not have the checksum of its manifest"),
    "a file gone": (lambda scene: scene.file("vectors.faiss").unlink(), "vectors.faiss cannot be read"),
    "the snapshot gone": (lambda scene: shutil.rmtree(scene.file("")), "its manifest cannot be read"),
    "CURRENT is garbage": (
        lambda scene: (scene.folder.directory / "CURRENT").write_bytes(b"\xff\x00"),
        "CURRENT names no snapshot",
    ),
    "an older copy put back": (_put_the_old_copy_back, "whose successors are gone"),
    "another dimension": (lambda scene: scene.save_as(dim=999), "made for"),
    "another model": (lambda scene: scene.save_as(model_fingerprint="another"), "made for"),
    "an older database restored": (restore_an_older_database, "it was restored from a backup"),
}
"""By name: what is done, and what the refusal says."""
