"""Bytes of any origin become clean text, whatever stands at the borders of what is read at once."""

from __future__ import annotations

import codecs
import io

import pytest

from ingest.chat_logs import text as text_module
from ingest.chat_logs.text import CleanUtf8, clean, lines

WORDS = "naïve 茶 🍵 tea\nsecond line"


@pytest.fixture(params=[1, 2, 3, 7, 256 * 1024])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_CHUNK_BYTES", max(4, request.param))


def read(content: bytes) -> bytes:
    return io.BufferedReader(CleanUtf8(io.BytesIO(content))).read()


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_bom_names_the_encoding_and_is_gone(bom: bytes, encoding: str) -> None:
    assert read(bom + WORDS.encode(encoding)).decode() == WORDS


@pytest.mark.usefixtures("_chunks")
def test_what_is_invalid_is_replaced_and_nul_is_left_out() -> None:
    assert read(b"a\xff\x00b\xe8\x8c").decode() == "a\ufffdb\ufffd"
    assert read(b"") == b""


@pytest.mark.parametrize(("given", "kept"), [("plain", "plain"), ("a\x00b", "ab"), ("a\ud83db", "a\ufffdb")])
def test_what_no_store_can_hold_is_taken_out(given: str, kept: str) -> None:
    assert clean(given) == kept


@pytest.mark.usefixtures("_chunks")
def test_lines_are_numbered_and_a_too_long_one_is_none() -> None:
    content = b"\xef\xbb\xbfone\r\n\r\n" + b"x" * 11 + b"\nfour\n" + b"y" * 30
    assert list(lines(io.BytesIO(content), max_bytes=10)) == [
        (1, "one"),
        (2, ""),
        (3, None),
        (4, "four"),
        (5, None),
    ]
