"""Snapshots of the index on disk: written whole or not at all, and trusted only when every check passes.

index/
├── owner.lock              held by the one process that may change the index
├── CURRENT                 the name of the newest complete snapshot
├── snapshots/NAME/         vectors.faiss  catalogue.npz  windows.faiss  windows.npz  words.npz  manifest.json
└── quarantine/NAME/        what was refused, kept for a look until something is erased
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uuid_utils

from memory.catalogue import Catalogue
from memory.errors import IndexRefused, SnapshotFailed
from memory.failpoints import reach
from memory.faiss_index import FAISSIndex
from memory.languages import DEFAULT_LANGUAGE
from memory.models import Identity, Seq
from memory.snapshot_manifest import (
    FORMAT,
    MANIFEST,
    check_files,
    check_identity,
    read_manifest,
    sealed,
    sha256_of,
)
from memory.window_index import WindowIndex, read_owners
from memory.word_index import WordIndex, read_held_ids

if TYPE_CHECKING:
    from memory.catalogue import Ids

_VECTORS = "vectors.faiss"
_CATALOGUE = "catalogue.npz"
_WINDOWS = "windows.faiss"
_WINDOW_OWNERS = "windows.npz"
_WORDS = "words.npz"
_FILES = (_VECTORS, _CATALOGUE, _WINDOWS, _WINDOW_OWNERS, _WORDS)
_NAME = re.compile(r"\d{20}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot that was loaded, or is about to be saved."""

    index: FAISSIndex  # the first window of each memory, which is mostly all of it
    windows: WindowIndex  # the others
    catalogue: Catalogue
    words: WordIndex
    applied_seq: Seq

    @property
    def slack(self) -> float:
        """How far a score may be from the cosine; 0 where both are exact."""
        return max(self.index.slack, self.windows.slack)

    def outgrown(self, *, exact_up_to: int) -> bool:
        """Return whether either holds more than its form is good for."""
        return any(part.outgrown(exact_up_to=exact_up_to) for part in (self.index, self.windows))


class SnapshotFolder:
    """The snapshots of one index directory. Only the holder of the owner's lock may write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._snapshots = directory / "snapshots"
        self._snapshots.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)

    def save(self, snapshot: Snapshot, identity: Identity, *, last_event: str | None = None) -> str:
        """Write a snapshot and make it the current one; return its name.

        Killed at any point, CURRENT names a complete snapshot: the new one or the one before.

        Args:
            snapshot: what to save.
            identity: what its vectors belong to.
            last_event: the mark of the last event in it, where there is one.

        Raises:
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        # The first digits of a UUIDv7 are the time: of two snapshots of one event, the later sorts last.
        name = f"{snapshot.applied_seq:020d}-{uuid_utils.uuid7().hex[:12]}"
        unfinished = self._snapshots / f"tmp-{name}"
        try:
            self._write(snapshot, identity, unfinished, last_event=last_event)
            unfinished.rename(self._snapshots / name)
            _fsync(self._snapshots)
            reach("snapshot.renamed")
            self._point_to(name)
            reach("snapshot.current")
        except (OSError, RuntimeError) as error:  # FAISS says RuntimeError when the disk is full
            shutil.rmtree(unfinished, ignore_errors=True)
            if self.current() != name:
                shutil.rmtree(self._snapshots / name, ignore_errors=True)
            message = f"snapshot {name} was not saved: {error}"
            raise SnapshotFailed(message) from error
        return name

    def _write(
        self, snapshot: Snapshot, identity: Identity, unfinished: Path, *, last_event: str | None
    ) -> None:
        unfinished.mkdir()
        snapshot.index.save(unfinished / _VECTORS)
        groups = snapshot.catalogue.save(unfinished / _CATALOGUE)
        snapshot.windows.save(unfinished / _WINDOWS, unfinished / _WINDOW_OWNERS)
        snapshot.words.save(unfinished / _WORDS)
        manifest = {
            "format": FORMAT,
            "applied_seq": snapshot.applied_seq,
            "last_event": last_event,
            "n_vectors": len(snapshot.index),
            "n_further": len(snapshot.windows),
            "identity": asdict(identity),
            "language": snapshot.words.language,
            "groups": groups,
            "sha256": {file: sha256_of(unfinished / file) for file in _FILES},
        }
        reach("snapshot.written")
        _write_durably(unfinished / MANIFEST, sealed(manifest))
        _fsync(unfinished / _CATALOGUE)
        _fsync(unfinished / _WINDOW_OWNERS)
        _fsync(unfinished / _WORDS)
        _fsync(unfinished)
        reach("snapshot.flushed")

    def load(
        self, identity: Identity, *, use_gpu: bool = False, language: str = DEFAULT_LANGUAGE
    ) -> tuple[str, Snapshot]:
        """Return the current snapshot's name and content, on a GPU if asked for.

        Raises:
            IndexRefused: there is none, or anything about it is odd; says what.

        """
        name = self.current()
        if name is None:
            message = "CURRENT names no snapshot" if self.has_pointer() else "there is no snapshot yet"
            raise IndexRefused(message)
        folder = self._snapshots / name
        manifest = read_manifest(folder)
        check_identity(manifest, identity, folder)
        if manifest["language"] != language:
            message = f"{name}: its words are of language {manifest['language']!r}, this is {language!r}"
            raise IndexRefused(message)
        check_files(manifest, folder)
        index = FAISSIndex.load(folder / _VECTORS, use_gpu=use_gpu)
        catalogue = Catalogue.load(folder / _CATALOGUE, manifest["groups"])
        same_ids = np.array_equal(index.ids(), catalogue.ids())
        if not same_ids or len(index) != manifest["n_vectors"] or index.dim != identity.dim:
            message = f"{name}: holds {len(index)} vectors of {index.dim} numbers, {len(catalogue)} listed"
            raise IndexRefused(message)
        windows = WindowIndex.load(
            folder / _WINDOWS, folder / _WINDOW_OWNERS, catalogue=catalogue, use_gpu=use_gpu
        )
        if len(windows) != manifest["n_further"]:
            message = f"{name}: holds {len(windows)} further windows, expected {manifest['n_further']}"
            raise IndexRefused(message)
        words = WordIndex.load(folder / _WORDS, language=language)
        if not np.array_equal(words.ids(), index.ids()):
            message = f"{name}: holds {len(index)} vectors, and the words of {len(words)} memories"
            raise IndexRefused(message)
        return name, Snapshot(
            index=index,
            windows=windows,
            catalogue=catalogue,
            words=words,
            applied_seq=Seq(manifest["applied_seq"]),
        )

    def last_event(self, name: str) -> str | None:
        """Return the mark of the last event in a snapshot, as it was saved.

        Raises:
            IndexRefused: its manifest cannot be trusted.

        """
        mark: str | None = read_manifest(self._snapshots / name).get("last_event")
        return mark

    def current(self) -> str | None:
        """Return the name in CURRENT, `None` where there is none."""
        try:
            name = (self.directory / "CURRENT").read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return name if _NAME.fullmatch(name) else None

    def has_pointer(self) -> bool:
        """Return whether CURRENT is there, whatever it says: then a snapshot was saved once."""
        return (self.directory / "CURRENT").exists()

    def kept_before(self, name: str) -> str | None:
        """Return the newest complete snapshot older than `name`."""
        older = [n for n in self.names() if n < name]
        return older[-1] if older else None

    def prune(self, *, keep: set[str]) -> None:
        """Delete every snapshot but these, half-written ones included."""
        for entry in self._snapshots.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry)

    def quarantine(self, name: str) -> Path:
        """Move a refused snapshot out of the way; it is kept for a look, never deleted here."""
        folder = self._aside(f"{name}-{uuid_utils.uuid7().hex[-6:]}")
        is_current = self.current() == name
        with contextlib.suppress(FileNotFoundError):
            (self._snapshots / name).rename(folder)
        if is_current:
            (self.directory / "CURRENT").unlink(missing_ok=True)
        return folder

    def keep_aside(self, what: str, body: bytes) -> Path:
        """Keep bytes that are about to be replaced, beside the refused snapshots; durably."""
        folder = self._aside(f"{what}-{uuid_utils.uuid7().hex}")
        folder.mkdir()
        _write_durably(folder / what, body)
        _fsync(folder)
        _fsync(folder.parent)
        return folder

    def check(self, name: str) -> None:
        """Check that a snapshot on the disk is what was saved: its manifest's seal, and every checksum.

        Raises:
            IndexRefused: it is not; says what is wrong.

        """
        folder = self._snapshots / name
        manifest = read_manifest(folder)
        check_files(manifest, folder)
        if manifest["applied_seq"] != seq_of(name):
            message = f"{name}: its manifest is of event {manifest['applied_seq']}"
            raise IndexRefused(message)

    def names(self) -> list[str]:
        """Return the complete snapshots on the disk, oldest first."""
        return sorted(e.name for e in self._snapshots.iterdir() if not e.name.startswith("tmp-"))

    def held(self) -> list[Ids | None]:
        """Return the ids in every snapshot on disk, `None` for one that cannot be read: half-written, say."""
        return [_ids_in(folder) for folder in sorted(self._snapshots.iterdir())]

    def empty_quarantine(self) -> int:
        """Delete what was refused: it may hold what must be gone. Return how many snapshots that were."""
        folder = self.directory / "quarantine"
        refused = list(folder.iterdir()) if folder.is_dir() else []
        for entry in refused:
            shutil.rmtree(entry)
        return len(refused)

    def _aside(self, name: str) -> Path:
        path = self.directory / "quarantine" / name
        path.parent.mkdir(exist_ok=True)
        return path

    def _point_to(self, name: str) -> None:
        pointer = self.directory / "CURRENT.tmp"
        _write_durably(pointer, name.encode())
        pointer.rename(self.directory / "CURRENT")
        _fsync(self.directory)


def seq_of(name: str) -> Seq:
    """Return the last event in the snapshot of this name."""
    return Seq(int(name.split("-", 1)[0]))


def _ids_in(folder: Path) -> Ids | None:
    try:
        ids = Catalogue.load(folder / _CATALOGUE, read_manifest(folder)["groups"]).ids()
        in_windows = read_owners(folder / _WINDOW_OWNERS)[1]
        return np.union1d(np.union1d(ids, in_windows), read_held_ids(folder / _WORDS))
    except IndexRefused:
        return None


def _write_durably(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
