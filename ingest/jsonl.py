"""Our own JSONL: a memory a line, valid ones, and bad ones with line and reason."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.trees import UnreadableMember
from ingest.hashed_names import HashedNames
from memory.errors import InvalidMemory
from memory.messages import FIELDS, RawMemory, decode_object, from_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

MAX_LINE_BYTES = 8 * 2**20
"""A longer line is refused unread: no memory needs it, and it could fill this process."""


def read_jsonl(
    stream: IO[bytes], *, name: str, max_content_bytes: int, namespace: str | None = None
) -> Iterator[RawMemory | Flaw]:
    """Yield a memory or a flaw for each line that is not blank.

    A line without a uid gets one from its own content, so that importing a file twice adds nothing;
    equal lines of one file are told apart by their order.

    Args:
        stream: opened for bytes; a BOM at its start is skipped.
        name: the file's name in messages.
        max_content_bytes: bound of one memory's content.
        namespace: for lines that name none.

    """
    names = HashedNames()
    for number, line in enumerate(_lines(stream), start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if len(text) <= MAX_LINE_BYTES and not text.strip():
            continue
        try:
            data = _decode(text)
            if namespace is not None and data.get("namespace") is None:
                data["namespace"] = namespace
            if data.get("uid") is None:
                data["uid"] = names.name(text.strip())
            yield from_mapping(data, max_content_bytes=max_content_bytes)
        except InvalidMemory as error:
            shown = text[:10_000].decode(errors="backslashreplace").rstrip("\r\n")
            yield Flaw(place=Place(file=name, at=f"line {number}"), reason=str(error), text=shown)


def _decode(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_LINE_BYTES:
        raise InvalidMemory(field="line", value="too long", allowed=f"at most {MAX_LINE_BYTES} bytes")
    return decode_object(text)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; one that is too long comes cut, and its rest is skipped."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)


def _recognise(sample: Sample) -> str | None:
    is_memory = isinstance(sample.value, dict) and "content" in sample.first and sample.first.keys() <= FIELDS
    if is_memory:
        return "lines of memories, with `content`"
    # So that a bad first line is told as what it is.
    return "its name" if sample.member.name.lower().endswith((".jsonl", ".ndjson")) else None


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[RawMemory | Flaw]:
    for member in members:
        try:
            with member.open() as stream:
                yield from read_jsonl(
                    stream,
                    name=member.shown,
                    max_content_bytes=options.max_content_bytes,
                    namespace=options.namespace,
                )
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))


JSONL = Reader(
    name="jsonl",
    title="JSONL of memories",
    looked_for="lines of memories, with `content`",
    recognise=_recognise,
    read=_read,
    is_lines=True,
)
