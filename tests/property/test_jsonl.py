"""JSONL reading on any bytes: one result for each line, never an exception."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest import jsonl
from ingest.chat_logs.messages import Flaw
from ingest.jsonl import read_jsonl
from memory.messages import RawMemory

good = st.sampled_from(
    [b'{"content": "It rained."}', b' {"content": "x", "uid": "u"} \r', b'{"content":"' + b"y" * 40 + b'"}']
)
lines_of = st.lists(good | st.binary(max_size=200).map(lambda b: b.replace(b"\n", b"")), max_size=12)


def is_blank(number: int, line: bytes) -> bool:
    return not (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()


def read(body: bytes) -> list[RawMemory | Flaw]:
    return list(read_jsonl(BytesIO(body), name="f", max_content_bytes=1000))


@settings(max_examples=200)
@given(lines=lines_of, bound=st.integers(4, 70))
def test_every_line_that_is_not_blank_gives_one_result_whatever_the_others_are(
    lines: list[bytes], bound: int
) -> None:
    # A line that is blank up to the bound is taken for blank; nobody writes such lines.
    assume(
        not any(is_blank(n, line[: bound + 1]) and not is_blank(n, line) for n, line in enumerate(lines, 1))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "MAX_LINE_BYTES", bound)
        results = read(b"\n".join(lines))
        alone = [
            read(b"\n" * (n - 1) + line + b"\n" * (n < len(lines)))
            for n, line in enumerate(lines, start=1)
            if not is_blank(n, line)
        ]
    assert [type(r) for r in results] == [type(r) for (r,) in alone]
    for result, (same,) in zip(results, alone, strict=True):
        if isinstance(result, RawMemory) and isinstance(same, RawMemory):
            assert result.content == same.content
        if isinstance(result, Flaw):
            assert result.text == same.text
