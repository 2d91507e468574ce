"""What is done to the index's files while the indexer is dead: each must be refused, or be harmless."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Spoil = Callable[["IndexFiles", random.Random], None]


class IndexFiles:
    """The files of one index directory, whose owner is dead for the moment."""

    def __init__(self, directory: Path, *, hideout: Path) -> None:
        self._directory = directory
        self._hideout = hideout
        """Where an old snapshot is kept, to be put back when its events are long gone."""

    def spoil(self, rng: random.Random) -> str | None:
        """Do one of the ways, by chance; return its name, `None` where there is no snapshot yet."""
        if self._current() is None:
            return None
        name, way = rng.choice(_WAYS)
        with contextlib.suppress(FileNotFoundError):
            way(self, rng)
        return name

    def keep_one(self) -> None:
        """Keep the newest snapshot aside, unless one is kept. Links suffice: its files never change."""
        newest = self._current()
        if newest and not self._hideout.exists():
            with contextlib.suppress(FileNotFoundError):
                shutil.copytree(newest, self._hideout / newest.name, copy_function=os.link)

    def flip_a_bit(self, rng: random.Random) -> None:
        file = self._some_file(rng)
        with file.open("r+b") as opened:
            place = rng.randrange(max(1, file.stat().st_size))
            opened.seek(place)
            byte = opened.read(1) or b"\0"
            opened.seek(place)
            opened.write(bytes([byte[0] ^ (1 << rng.randrange(8))]))

    def truncate(self, rng: random.Random) -> None:
        file = self._some_file(rng)
        os.truncate(file, rng.randrange(max(1, file.stat().st_size)))

    def delete_a_file(self, rng: random.Random) -> None:
        self._some_file(rng).unlink()

    def spoil_the_pointer(self, rng: random.Random) -> None:
        (self._directory / "CURRENT").write_bytes(rng.randbytes(rng.randrange(40)))

    def put_back_the_one_before(self, _rng: random.Random) -> None:
        """Its events are still there: it is used, and brought up."""
        names = sorted(e.name for e in (self._directory / "snapshots").iterdir() if e.name[:3] != "tmp")
        (self._directory / "CURRENT").write_text(names[0])

    def put_back_an_old_one(self, _rng: random.Random) -> None:
        """Its events are gone: it must be refused."""
        [old] = self._hideout.iterdir()
        target = self._directory / "snapshots" / old.name
        if not target.exists():
            shutil.copytree(old, target, copy_function=os.link)
        (self._directory / "CURRENT").write_text(old.name)

    def delete_everything(self, _rng: random.Random) -> None:
        shutil.rmtree(self._directory / "snapshots")

    def _current(self) -> Path | None:
        try:
            path = self._directory / "snapshots" / (self._directory / "CURRENT").read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return path if path.is_dir() else None

    def _some_file(self, rng: random.Random) -> Path:
        folder = self._current()
        if folder is None:
            raise FileNotFoundError
        file = rng.choice(sorted(folder.iterdir()))
        if file.stat().st_nlink > 1:  # the one that is kept aside shall stay whole
            copy = file.with_name(f"{file.name}.copy")
            shutil.copy2(file, copy)
            copy.rename(file)
        return file


_WAYS: tuple[tuple[str, Spoil], ...] = (
    ("bit flipped", IndexFiles.flip_a_bit),
    ("file truncated", IndexFiles.truncate),
    ("file deleted", IndexFiles.delete_a_file),
    ("CURRENT overwritten", IndexFiles.spoil_the_pointer),
    ("the snapshot before put back", IndexFiles.put_back_the_one_before),
    ("an old snapshot put back", IndexFiles.put_back_an_old_one),
    ("all snapshots deleted", IndexFiles.delete_everything),
)
