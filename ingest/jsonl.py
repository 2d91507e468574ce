"""Reads JSONL files of memories, line by line: valid ones, and bad ones with line and reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from memory.errors import InvalidMemory
from memory.messages import RawMemory, decode_object, from_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_BYTES = 8 * 2**20
"""A longer line is refused unread: no memory needs it, and it could fill this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """One line that is no memory. `number` counts from 1."""

    file: str
    number: int
    reason: str
    text: str


def read_jsonl(
    stream: IO[bytes], *, name: str, max_content_bytes: int, namespace: str | None = None
) -> Iterator[RawMemory | BadLine]:
    """Yield a memory or a bad line for each line that is not blank.

    A line without a uid gets one from its own content, so that importing a file twice adds nothing;
    equal lines of one file are told apart by their order.

    Args:
        stream: opened for bytes; a BOM at its start is skipped.
        name: the file's name in messages.
        max_content_bytes: bound of one memory's content.
        namespace: for lines that name none.

    """
    n_equal: Counter[str] = Counter()
    for number, line in enumerate(_lines(stream), start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if len(text) <= MAX_LINE_BYTES and not text.strip():
            continue
        try:
            data = _decode(text)
            if namespace is not None and data.get("namespace") is None:
                data["namespace"] = namespace
            if data.get("uid") is None:
                data["uid"] = _uid(text, n_equal)
            yield from_mapping(data, max_content_bytes=max_content_bytes)
        except InvalidMemory as error:
            shown = text[:10_000].decode(errors="backslashreplace").rstrip("\r\n")
            yield BadLine(file=name, number=number, reason=str(error), text=shown)


def _decode(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_LINE_BYTES:
        raise InvalidMemory(field="line", value="too long", allowed=f"at most {MAX_LINE_BYTES} bytes")
    return decode_object(text)


def _uid(text: bytes, n_equal: Counter[str]) -> str:
    digest = hashlib.sha256(text.strip()).hexdigest()[:32]
    n_equal[digest] += 1
    ordinal = f":{n_equal[digest]}" if n_equal[digest] > 1 else ""
    return f"sha256:{digest}{ordinal}"


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; one that is too long comes cut, and its rest is skipped."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)
