"""A growing file is read up to its last whole line, and no further."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import growing
from ingest.growing import whole_lines


@pytest.mark.parametrize("step", [1, 2, 3, 64 * 1024])
@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"", b""),
        (b"no end", b""),
        (b"\n", b"\n"),
        (b"one\n", b"one\n"),
        (b"one\ntw", b"one\n"),
        (b"one\n\ntwo\nthree", b"one\n\ntwo\n"),
    ],
)
def test_it_ends_with_the_last_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, content: bytes, whole: bytes
) -> None:
    monkeypatch.setattr(growing, "_STEP_BYTES", step)
    path = tmp_path / "log"
    path.write_bytes(content)
    with whole_lines(path) as stream:
        path.write_bytes(content + b"\nmore\n")
        assert stream.read() == whole
