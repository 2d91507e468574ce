"""A file that grows, as a live log does: read up to the end of its last whole line."""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_STEP_BYTES = 64 * 1024


def whole_lines(path: Path) -> IO[bytes]:
    """Open for reading what is whole by now. Raises OSError."""
    file = path.open("rb")
    try:
        return io.BufferedReader(_Beginning(file, n_bytes=_end_of_last_line(file)))
    except OSError:
        file.close()
        raise


def _end_of_last_line(file: IO[bytes]) -> int:
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _STEP_BYTES)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


class _Beginning(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: IO[bytes], *, n_bytes: int) -> None:
        self._file = file
        self._left = n_bytes
        file.seek(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(self._left, len(buffer)))
        self._left -= len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()
