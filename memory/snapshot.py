"""Snapshots of the index on disk: written whole or not at all, and trusted only when every check passes.

index/
├── owner.lock              held by the one process that may change the index
├── CURRENT                 the name of the newest complete snapshot
├── snapshots/NAME/         vectors.faiss  catalogue.npz  manifest.json
└── quarantine/NAME/        what was refused, kept for a look
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uuid_utils

from memory.catalogue import Catalogue
from memory.errors import IndexRefused, SnapshotFailed
from memory.faiss_index import FAISSIndex
from memory.models import Identity, Seq

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
_VECTORS = "vectors.faiss"
_CATALOGUE = "catalogue.npz"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"\d{20}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot that was loaded, or is about to be saved."""

    index: FAISSIndex
    catalogue: Catalogue
    applied_seq: Seq


class SnapshotFolder:
    """The snapshots of one index directory. Only the holder of the owner's lock may write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._snapshots = directory / "snapshots"
        self._snapshots.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)

    def save(self, snapshot: Snapshot, identity: Identity) -> str:
        """Write a snapshot and make it the current one; return its name.

        Killed at any point, CURRENT names a complete snapshot: the new one or the one before.

        Raises:
            SnapshotFailed: the disk did not take it; the one before is still there.

        """
        # The first digits of a UUIDv7 are the time: of two snapshots of one event, the later sorts last.
        name = f"{snapshot.applied_seq:020d}-{uuid_utils.uuid7().hex[:12]}"
        unfinished = self._snapshots / f"tmp-{name}"
        try:
            self._write(snapshot, identity, unfinished)
            unfinished.rename(self._snapshots / name)
            _fsync(self._snapshots)
            self._point_to(name)
        except (OSError, RuntimeError) as error:  # FAISS says RuntimeError when the disk is full
            shutil.rmtree(unfinished, ignore_errors=True)
            if self.current() != name:
                shutil.rmtree(self._snapshots / name, ignore_errors=True)
            message = f"snapshot {name} was not saved: {error}"
            raise SnapshotFailed(message) from error
        return name

    def _write(self, snapshot: Snapshot, identity: Identity, unfinished: Path) -> None:
        unfinished.mkdir()
        snapshot.index.save(unfinished / _VECTORS)
        groups = snapshot.catalogue.save(unfinished / _CATALOGUE)
        manifest = {
            "format": FORMAT,
            "applied_seq": snapshot.applied_seq,
            "n_vectors": len(snapshot.index),
            "identity": asdict(identity),
            "groups": groups,
            "sha256": {file: _sha256(unfinished / file) for file in (_VECTORS, _CATALOGUE)},
        }
        _write_durably(unfinished / _MANIFEST, _sealed(manifest))
        _fsync(unfinished / _CATALOGUE)
        _fsync(unfinished)

    def load(self, identity: Identity, *, use_gpu: bool = False) -> tuple[str, Snapshot]:
        """Return the current snapshot's name and content, on a GPU if asked for.

        Raises:
            IndexRefused: there is none, or anything about it is odd; says what.

        """
        name = self.current()
        if name is None:
            message = "there is no snapshot yet"
            raise IndexRefused(message)
        folder = self._snapshots / name
        manifest = _read_manifest(folder)
        _check_manifest(manifest, identity, folder)
        index = FAISSIndex.load(folder / _VECTORS, use_gpu=use_gpu)
        catalogue = Catalogue.load(folder / _CATALOGUE, manifest["groups"])
        same_ids = np.array_equal(index.ids(), catalogue.ids())
        if not same_ids or len(index) != manifest["n_vectors"] or index.dim != identity.dim:
            message = f"{name}: holds {len(index)} vectors of {index.dim} numbers, {len(catalogue)} listed"
            raise IndexRefused(message)
        return name, Snapshot(index=index, catalogue=catalogue, applied_seq=Seq(manifest["applied_seq"]))

    def current(self) -> str | None:
        """Return the name in CURRENT, `None` where there is none."""
        try:
            name = (self.directory / "CURRENT").read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return name if _NAME.fullmatch(name) else None

    def kept_before(self, name: str) -> str | None:
        """Return the newest complete snapshot older than `name`."""
        older = [n for n in self._names() if n < name]
        return older[-1] if older else None

    def prune(self, *, keep: set[str]) -> None:
        """Delete every snapshot but these, half-written ones included."""
        for entry in self._snapshots.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry)

    def quarantine(self, name: str) -> Path:
        """Move a refused snapshot out of the way; it is kept for a look, never deleted here."""
        folder = self.directory / "quarantine" / f"{name}-{uuid_utils.uuid7().hex[-6:]}"
        folder.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self._snapshots / name).rename(folder)
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "CURRENT").unlink()
        return folder

    def _names(self) -> Iterator[str]:
        yield from sorted(e.name for e in self._snapshots.iterdir() if not e.name.startswith("tmp-"))

    def _point_to(self, name: str) -> None:
        pointer = self.directory / "CURRENT.tmp"
        _write_durably(pointer, name.encode())
        pointer.rename(self.directory / "CURRENT")
        _fsync(self.directory)


def seq_of(name: str) -> Seq:
    """Return the last event in the snapshot of this name."""
    return Seq(int(name.split("-", 1)[0]))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        body, _, seal = (folder / _MANIFEST).read_bytes().rpartition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != seal:
            message = f"{folder.name}: its manifest does not have its own checksum"
            raise IndexRefused(message)
        manifest = json.loads(body)
    except (OSError, ValueError) as error:
        message = f"{folder.name}: its manifest cannot be read ({error})"
        raise IndexRefused(message) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        message = f"{folder.name}: its manifest is of another format"
        raise IndexRefused(message)
    return manifest


def _sealed(manifest: dict[str, Any]) -> bytes:
    body = json.dumps(manifest, ensure_ascii=False).encode()
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode()


def _check_manifest(manifest: dict[str, Any], identity: Identity, folder: Path) -> None:
    if manifest["identity"] != asdict(identity):
        message = f"{folder.name}: made for {manifest['identity']}, this is {asdict(identity)}"
        raise IndexRefused(message)
    for file, expected in manifest["sha256"].items():
        try:
            found = _sha256(folder / file)
        except OSError as error:
            message = f"{folder.name}: {file} cannot be read ({error})"
            raise IndexRefused(message) from error
        if found != expected:
            message = f"{folder.name}: {file} does not have the checksum of its manifest"
            raise IndexRefused(message)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
