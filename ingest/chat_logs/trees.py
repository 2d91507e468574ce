"""What is imported: a file, a folder or a zip, as a list of members that are opened one by one.

A zip is read without being extracted, so the names in it decide nothing about the disk. Links inside of a
folder are not followed: nothing outside of the given path is read.
"""

from __future__ import annotations

import functools
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ingest.chat_logs.messages import Flaw, Place

MAX_EXPANSION = 500
"""A member of a zip that unpacks to more than so many times its size is no text that people wrote."""

_ALWAYS_ALLOWED_BYTES = 64 * 2**20
_BUFFER_BYTES = 256 * 1024
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)


class UnreadableMember(Exception):
    """A member cannot be read, or not to its end. Says why, in words for the person who imports it."""


class Reading:
    """How far a member was read the last time that it was opened."""

    def __init__(self) -> None:
        self._stream: IO[bytes] | None = None

    def of(self, stream: IO[bytes]) -> None:
        """Look at this stream from now on."""
        self._stream = stream

    def n_bytes(self, *, of: int) -> int:
        """Return how many bytes of so many were read: all, once it is closed; 0 before it was opened."""
        if self._stream is None:
            return 0
        try:
            return of if self._stream.closed else min(of, self._stream.tell())
        except (OSError, ValueError):  # no file: a pipe
            return 0


@dataclass(frozen=True, slots=True)
class Member:
    """One file of what is imported, by its name inside of it, with `/` between folders."""

    name: str
    shown: str  # the name for messages: with the path that was given
    n_bytes: int
    opener: Callable[[], AbstractContextManager[IO[bytes]]]
    stamp: int = 0  # another one when its content has changed: its time of change, or a checksum
    reading: Reading = field(default_factory=Reading, compare=False)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading, once more at each call.

        Raises:
            UnreadableMember: it cannot be opened, or what is done with it inside the block cannot go on:
                a damaged zip, a disk error, a zip that unpacks to far more than text would.

        """
        try:
            with self.opener() as stream:
                self.reading.of(stream)
                yield stream
        except _DAMAGE as error:
            raise UnreadableMember(_reason(error)) from error


@dataclass(frozen=True, slots=True)
class Tree:
    """The members of one file, folder or zip, sorted by name, and what was passed over."""

    shown: str
    members: tuple[Member, ...]
    flaws: tuple[Flaw, ...] = ()

    def get(self, name: str) -> Member | None:
        """Return the first member of this name."""
        return next((member for member in self.members if member.name == name), None)


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Open what stands at `path`.

    Raises:
        UnreadableMember: there is nothing, or a zip whose list of members is damaged.

    """
    if path.is_dir():
        yield _folder(path)
    elif not path.is_file():
        raise UnreadableMember("there is no such file or folder" if not path.exists() else "this is no file")
    elif zipfile.is_zipfile(path):
        with _opened_zip(path) as file:
            yield _zip(path, file)
    elif path.suffix.lower() == ".zip":
        raise UnreadableMember("this is no zip, or its end is missing: was it downloaded completely?")
    else:
        yield Tree(shown=str(path), members=(_file(path, name=path.name),))


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        file = zipfile.ZipFile(path)
    except (*_DAMAGE, ValueError, struct.error) as error:
        raise UnreadableMember(f"this zip is damaged: {error}") from error
    with file:
        yield file


def _zip(path: Path, file: zipfile.ZipFile) -> Tree:
    members = [
        Member(
            name=info.filename,
            shown=f"{path}: {_printable(info.filename)}",
            n_bytes=info.file_size,
            stamp=info.CRC,
            opener=functools.partial(_opened_member, file, info),
        )
        for info in file.infolist()
        if not info.filename.endswith("/")
    ]
    return Tree(shown=str(path), members=tuple(sorted(members, key=lambda member: member.name)))


def _folder(path: Path) -> Tree:
    members, flaws = [], []
    for found, folders, names in os.walk(path):
        folders.sort()
        here = Path(found)
        links = [here / name for name in folders if (here / name).is_symlink()]
        flaws += [_passed_over(link, "a link to a folder is not followed") for link in links]
        for name in names:
            if stat.S_ISREG((here / name).lstat().st_mode):
                members.append(_file(here / name, name=(here / name).relative_to(path).as_posix()))
            else:
                flaws.append(_passed_over(here / name, "a link or no plain file: it is not read"))
    return Tree(
        shown=str(path),
        members=tuple(sorted(members, key=lambda member: member.name)),
        flaws=tuple(flaws),
    )


def _file(path: Path, *, name: str) -> Member:
    found = path.stat()
    return Member(
        name=name,
        shown=_printable(str(path)),
        n_bytes=found.st_size,
        stamp=found.st_mtime_ns,
        opener=lambda: path.open("rb"),
    )


def _passed_over(path: Path, reason: str) -> Flaw:
    return Flaw(place=Place(file=_printable(str(path))), reason=reason)


class _Bounded(io.RawIOBase):
    """A member of a zip, read up to the size that text may unpack to."""

    def __init__(self, stream: IO[bytes], *, at_most: int) -> None:
        self._stream = stream
        self._left = self._at_most = at_most

    def tell(self) -> int:
        return self._at_most - self._left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        self._left -= len(chunk)
        if self._left < 0:
            raise UnreadableMember(f"it unpacks to over {MAX_EXPANSION} times its size, as no text does")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _opened_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    at_most = max(_ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * info.compress_size)
    try:
        stream = file.open(info)
    except (ValueError, struct.error) as error:  # its head is damaged
        raise zipfile.BadZipFile(str(error)) from error
    return io.BufferedReader(_Bounded(stream, at_most=at_most), buffer_size=_BUFFER_BYTES)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RuntimeError) and "password" in str(error):
        return "it is encrypted"
    return f"it is damaged: {error or type(error).__name__}"
