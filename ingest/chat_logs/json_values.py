"""The one door to ijson: JSON of any size as a stream of its parts."""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Any

import ijson
from ijson.common import ObjectBuilder

from ingest.chat_logs.text import CleanUtf8
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.chat_logs.trees import Member

# Floats and 64-bit integers: one of 5,000 digits would end the process, one of 10,000,000 take hours.
_OPTIONS = {"buf_size": 256 * 1024, "use_float": True}

MAX_DEPTH = 1000
"""What is nested deeper is refused: ijson notes a path at each level, gigabytes for 10,000 of them."""

_STRING = re.compile(rb'"[^"]*"?')
_SURROGATE = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_SURROGATES = re.compile(
    _SURROGATE + rb"(?:" + _SURROGATE + rb")*"
)  # begins with a letter: four times as fast
_UNFINISHED = re.compile(
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?\\(?:u[0-9a-fA-F]{0,3})?\Z|\\u[dD][89abAB][0-9a-fA-F]{2}\Z"
)
_LONGEST_UNFINISHED = 11


class _FlatJson(CleanUtf8):
    """Clean bytes of JSON in which no chunk begins very many more lists and objects than it ends.

    Escapes of lone surrogates are replaced: ijson would make other characters of some, and fail at others.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._is_in_string = False  # where the last chunk ended
        self._escape = b""  # half of one, where the last chunk ended
        self._held = b""  # what may go on in the next chunk, from a backslash on
        super().__init__(stream)

    def cleaned(self, chunk: bytes) -> bytes:
        clean = self._paired(super().cleaned(chunk), is_end=not chunk)
        was_in_string = self._is_in_string
        plain = self._escape + clean
        n_backslashes = len(plain) - len(plain.rstrip(b"\\"))
        self._escape = b"\\" * (n_backslashes % 2)
        plain = plain[: len(plain) - len(self._escape)].replace(b"\\\\", b"").replace(b'\\"', b"")
        self._is_in_string ^= plain.count(b'"') % 2 == 1
        if _n_open(plain) > MAX_DEPTH and _n_open(_outside_strings(plain, was_in_string)) > MAX_DEPTH:
            raise UnreadableMember(f"its values are nested over {MAX_DEPTH} deep")
        return clean

    def _paired(self, clean: bytes, *, is_end: bool) -> bytes:
        """Return what is sure by now, without lone surrogates."""
        clean = self._held + clean
        end = len(clean) if is_end else _end_of_escapes(clean)
        clean, self._held = clean[:end], clean[end:]
        return _without_lone_surrogates(clean)


def _end_of_escapes(clean: bytes) -> int:
    """Return where to cut, so that no escape, and no pair of them, is cut into two."""
    unfinished = _UNFINISHED.search(clean, max(0, len(clean) - _LONGEST_UNFINISHED))
    if unfinished is None:
        return len(clean)
    place = unfinished.start()
    n_before = place - len(clean[:place].rstrip(b"\\"))
    return place - n_before % 2  # of two backslashes, the second one begins nothing


def _without_lone_surrogates(clean: bytes) -> bytes:
    """Replace every escape of half a character, in JSON that is cut within none."""
    if b"\\ud" not in clean and b"\\uD" not in clean:
        return clean
    return _SURROGATES.sub(_pairs, clean)


def _pairs(found: re.Match[bytes]) -> bytes:
    """Return a run of escapes of surrogates with those replaced that are no half of a pair."""
    escapes = [found[0][begin : begin + 6] for begin in range(0, len(found[0]), 6)]
    place = _n_backslashes_before(found) % 2  # then its first backslash is the second of two, and no escape
    kept = escapes[:place]
    while place < len(escapes):
        is_pair = _is_high(escapes[place]) and place + 1 < len(escapes) and not _is_high(escapes[place + 1])
        kept += escapes[place : place + 2] if is_pair else [b"\\ufffd"]
        place += 1 + is_pair
    return b"".join(kept)


def _n_backslashes_before(found: re.Match[bytes]) -> int:
    place = found.start()
    while place and found.string[place - 1 : place] == b"\\":
        place -= 1
    return found.start() - place


def _is_high(escape: bytes) -> bool:
    return escape[3:4] in b"89abAB"


def _n_open(chunk: bytes) -> int:
    return chunk.count(b"{") + chunk.count(b"[") - chunk.count(b"}") - chunk.count(b"]")


def _outside_strings(chunk: bytes, is_in_string: bool) -> bytes:
    return _STRING.sub(b"", b'"' + chunk if is_in_string else chunk)


def values(member: Member, *prefixes: str) -> Iterator[Any]:
    """Yield each JSON value that stands at one of the prefixes, whole, in the order of the file.

    A prefix names keys, and `item` for each element of a list, joined by dots: `item` is each element of a
    list at the top, `chats.list.item` each of a list further in, an empty one the whole. One pass for each
    prefix: usually only the first one finds anything, so name the likeliest first.

    Raises:
        UnreadableMember: the file ends too soon or is no JSON; what was complete has been yielded.

    """
    for prefix in prefixes:
        with member.open() as stream:
            try:
                yield from ijson.items(_FlatJson(stream), prefix, **_OPTIONS)
            except ijson.JSONError as error:
                raise UnreadableMember(_reason(error)) from error


def events(member: Member) -> Iterator[tuple[str, str, Any]]:
    """Yield (prefix, event, value) for each token, as `ijson.parse` does: for what `values` cannot tell.

    Raises:
        UnreadableMember: as `values`.

    """
    with member.open() as stream:
        try:
            yield from ijson.parse(_FlatJson(stream), **_OPTIONS)
        except ijson.JSONError as error:
            raise UnreadableMember(_reason(error)) from error


def beginning(text: bytes) -> Any:
    """Return the first JSON value of a text that may be cut off anywhere: as much of it as is there.

    `None` where the text does not begin with a JSON list or object.
    """
    builder = ObjectBuilder()
    depth = 0
    try:
        stream = io.BytesIO(_without_lone_surrogates(text))
        for event, value in ijson.basic_parse(stream, multiple_values=True, use_float=True):
            builder.event(event, value)
            depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
            if depth == 0:
                break
    except ijson.JSONError:
        pass
    found = getattr(builder, "value", None)
    return found if isinstance(found, dict | list) else None


def _reason(error: ijson.JSONError) -> str:
    said = error.args[0] if error.args else ""
    first = (
        (said.decode(errors="replace") if isinstance(said, bytes) else str(said)).split("\n", 1)[0].strip()
    )
    if "premature EOF" in first:
        return "the file ends in the middle of a value: it was not saved or downloaded completely"
    return f"this is no JSON from here on ({first})"
