"""The directory of exported models: each made once, by one process, whole or not at all.

An entry is a directory named for all that decides what is in it: the model's files, OpenVINO's version, the
kind of processor, and whether it is quantised. Its manifest holds the checksum of every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memory.engines.source import file_hash
from memory.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = "manifest.json"
_FORMAT = 1
_UNFINISHED = ".tmp-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is known of an exported model without loading it."""

    engine_version: str
    digest: str = ""
    dim: int = 0
    pad_id: int = 0
    cosines: dict[str, float] = field(default_factory=dict)
    """By precision: how near its vectors came to torch's float32: the least of all; of int8 the mean."""
    refused: str | None = None
    """Why there is nothing but this manifest: the model cannot be exported."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An export, and the directory of its files."""

    directory: Path
    export: Export


class ExportCache:
    """Exported models in one directory, shared by processes and by versions.

    Args:
        directory: made when the first model is exported.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str, *, make: Callable[[Path], Export]) -> Entry:
        """Return the entry of this key; where it is not there, or damaged, make it.

        Of several processes one makes it and the others wait. Killed meanwhile, it is made anew.

        Args:
            key: a file's name.
            make: writes the files into an empty directory.

        Raises:
            OSError: the directory cannot be written.

        """
        if entry := self.find(key):
            return entry
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._directory / f"{key}.lock")
        lock.acquire(on_wait=lambda: None)
        try:
            return self.find(key) or self._make(key, make)
        finally:
            lock.release()

    def find(self, key: str) -> Entry | None:
        """Return the entry of this key, `None` where it is not there or not whole."""
        directory = self._directory / key
        try:
            found = json.loads((directory / MANIFEST).read_text())
            checksums = found.pop("files")
            if found.pop("format") != _FORMAT:
                return None
            if any(file_hash(directory / name) != checksum for name, checksum in checksums.items()):
                return None
            return Entry(directory, Export(**found))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or torn in any way
            return None

    def _make(self, key: str, make: Callable[[Path], Export]) -> Entry:
        # Of one that was killed, since the lock is ours.
        for leftover in self._directory.glob(f"{key}{_UNFINISHED}*"):
            shutil.rmtree(leftover)
        temporary = Path(tempfile.mkdtemp(prefix=f"{key}{_UNFINISHED}", dir=self._directory))
        try:
            export = make(temporary)
            _seal(temporary, export)
            final = self._directory / key
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush(self._directory)
        self._forget_other_versions(export.engine_version)
        return Entry(final, export)

    def _forget_other_versions(self, version: str) -> None:
        """Remove what another version of the engine left behind: nothing here would ever read it."""
        for manifest in self._directory.glob(f"*/{MANIFEST}"):
            if _UNFINISHED in manifest.parent.name:  # another process is about to rename it
                continue
            try:
                is_of_another = json.loads(manifest.read_text()).get("engine_version") != version
            except (OSError, ValueError, AttributeError):  # torn: made anew when it is asked for
                continue
            if is_of_another:
                shutil.rmtree(manifest.parent)


def key_of(*parts: str) -> str:
    """Return a name for what these decide: 16 hex digits."""
    return hashlib.sha256("\0".join((str(_FORMAT), *parts)).encode()).hexdigest()[:16]


def _seal(directory: Path, export: Export) -> None:
    """Write the manifest, and see to it that all of it is on the disk."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    found = {"format": _FORMAT, **asdict(export), "files": {path.name: file_hash(path) for path in files}}
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps(found, indent=1))
    for path in (*files, manifest, directory):
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
