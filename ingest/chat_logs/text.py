"""Bytes of unknown origin as clean text: in the encoding that a BOM names, else UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 256 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its BOM begins with that one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNSTORABLE = {0: None} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def clean(text: str) -> str:
    """Return the text without NUL, a replacement character for each lone surrogate."""
    if "\x00" in text or not _is_encodable(text):
        return text.translate(_UNSTORABLE)
    return text


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class CleanUtf8(io.RawIOBase):
    """A stream of bytes as valid UTF-8 without a BOM and without NUL; what is invalid becomes U+FFFD."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        head = stream.read(_CHUNK_BYTES)
        bom, encoding = next(((b, e) for b, e in _BOMS if head.startswith(b)), (b"", "utf-8"))
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._is_at_end = not head
        self._ready = self.cleaned(head[len(bom) :])

    def readable(self) -> bool:  # noqa: D102 (as io.RawIOBase)
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: D102
        while not self._ready and not self._is_at_end:
            chunk = self._stream.read(_CHUNK_BYTES)
            self._is_at_end = not chunk
            self._ready = self.cleaned(chunk)
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def cleaned(self, chunk: bytes) -> bytes:
        """Return the next bytes; an empty chunk is the end."""
        return self._decoder.decode(chunk, final=not chunk).encode().replace(b"\x00", b"")


def lines(stream: IO[bytes], *, max_bytes: int) -> Iterator[tuple[int, str | None]]:
    """Yield (number from 1, text without its line end) for each line; `None` for one over `max_bytes`."""
    reader = io.BufferedReader(CleanUtf8(stream), buffer_size=_CHUNK_BYTES)
    number = 0
    while line := reader.readline(max_bytes + 1):
        number += 1
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield number, line.decode(errors="replace").rstrip("\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = reader.readline(max_bytes + 1)
        yield number, None
