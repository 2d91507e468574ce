"""JSONL files: every line is read for itself, and a file read twice gives the same memories."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from ingest import jsonl
from ingest.chat_logs.messages import Flaw, Place
from ingest.jsonl import read_jsonl
from memory.messages import RawMemory

RAIN = b'{"content": "It rained."}'
SNOW = b'{"content": "It snowed."}'


def read(body: bytes, **options: Any) -> list[RawMemory | Flaw]:
    return list(read_jsonl(BytesIO(body), name="f.jsonl", max_content_bytes=1000, **options))


def contents(body: bytes) -> list[str | int]:
    """Return each line's content, or its number where it is bad."""
    return [
        line.content if isinstance(line, RawMemory) else int(line.place.at.removeprefix("line "))
        for line in read(body)
    ]


def uids(body: bytes) -> list[str]:
    return [line.uid for line in read(body) if isinstance(line, RawMemory)]


@pytest.mark.parametrize(
    "body",
    [
        RAIN + b"\n" + SNOW + b"\n",
        RAIN + b"\n" + SNOW,
        RAIN + b"\r\n" + SNOW + b"\r\n",
        b"\xef\xbb\xbf" + RAIN + b"\n" + SNOW,
        b"\n \n" + RAIN + b"\n\r\n\t\n" + SNOW + b"\n\n",
        b"\xef\xbb\xbf\n  " + RAIN + b"  \n" + SNOW,
    ],
    ids=["lf", "no lf at the end", "crlf", "bom", "blank lines", "bom alone, and blanks around"],
)
def test_line_ends_blank_lines_and_a_bom_do_not_matter(body: bytes) -> None:
    assert contents(body) == ["It rained.", "It snowed."]
    assert uids(body) == uids(RAIN + b"\n" + SNOW)


@pytest.mark.parametrize("body", [b"", b"\n", b"\xef\xbb\xbf", b" \r\n\t\n"])
def test_an_empty_file_holds_nothing(body: bytes) -> None:
    assert read(body) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"It rained.", "valid JSON"),
        (b'["It rained."]', "a JSON object"),
        (b'{"content": " "}', "not blank"),
        (b'{"content": "a", "metadata": {"importance": NaN}}', "finite"),
        (b'{"content": "\xe9t\xe9"}', "UTF-8"),
        (b'{"content": "\\ud800"}', "surrogates"),
        (b'{"content": "a", "contents": "b"}', "one of content"),
        (b'{"content": "' + b"x" * 1001 + b'"}', "at most 1000 bytes"),
        (RAIN + b" " + SNOW, "valid JSON"),
    ],
)
def test_a_bad_line_says_where_and_why_and_spares_the_others(line: bytes, reason: str) -> None:
    first, bad, last = read(RAIN + b"\n" + line + b"\r\n" + SNOW)
    assert isinstance(bad, Flaw)
    assert bad.place == Place(file="f.jsonl", at="line 2")
    assert reason in bad.reason
    assert bad.text == line.decode(errors="backslashreplace")
    assert [first.content, last.content] == ["It rained.", "It snowed."]  # type: ignore[union-attr]


def test_line_numbers_count_blank_lines_too() -> None:
    assert contents(b"\n\nbad\n" + RAIN) == [3, "It rained."]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""], ids=["lf", "crlf", "end of file"])
def test_a_line_as_long_as_the_bound_with_its_end_is_read(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 50)
    line = RAIN.ljust(50 - len(end)) + end
    assert contents(SNOW + b"\n" + line) == ["It snowed.", "It rained."]


@pytest.mark.parametrize("n_bytes", [51, 52, 99, 100, 101, 102, 103, 150, 152, 153, 154, 204, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_past_the_bound_is_refused_and_the_next_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, n_bytes: int, end: bytes
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 50)
    body = RAIN + end + RAIN.ljust(n_bytes) + end + SNOW + end + b"bad" + end + RAIN
    assert contents(body) == ["It rained.", 2, "It snowed.", 4, "It rained."]
    assert contents(RAIN + end + b"x" * n_bytes) == ["It rained.", 2]


def test_a_huge_line_is_refused_and_only_its_start_is_kept() -> None:
    huge, after = read(b'{"content": "' + b"x" * (3 * jsonl.MAX_LINE_BYTES) + b'"}\n' + RAIN)
    assert isinstance(huge, Flaw)
    assert f"at most {jsonl.MAX_LINE_BYTES} bytes" in huge.reason
    assert len(huge.text) == 10_000
    assert isinstance(after, RawMemory)


def test_a_file_read_twice_gives_the_same_uids() -> None:
    body = RAIN + b"\n" + SNOW + b"\n" + RAIN
    assert uids(body) == uids(body)


def test_equal_lines_of_one_file_get_different_uids() -> None:
    assert len(set(uids((RAIN + b"\n") * 3 + SNOW))) == 4


def test_a_line_keeps_its_uid_when_others_come_before_it() -> None:
    assert uids(b"bad\n" + SNOW + b"\n" + RAIN)[1] == uids(RAIN)[0]


def test_the_last_line_has_the_uid_it_would_have_before_another() -> None:
    assert uids(SNOW + b"\r\n" + RAIN)[1] == uids(SNOW + b"\n" + RAIN + b"\n" + SNOW)[1]


@pytest.mark.parametrize("null", ["", ', "uid": null'])
def test_a_uid_in_the_metadata_is_not_the_memorys(null: str) -> None:
    line = f'{{"content": "It rained.", "metadata": {{"uid": "m"}}{null}}}'.encode()
    (raw,) = read(line)
    assert isinstance(raw, RawMemory)
    assert raw.uid.startswith("sha256:")
    assert raw.metadata == {"uid": "m"}


def test_a_line_that_names_its_uid_keeps_it() -> None:
    assert uids(b'{"content": "It rained.", "uid": "mine", "metadata": {"uid": "m"}}') == ["mine"]


@pytest.mark.parametrize(
    ("named", "expected"), [({}, "given"), ({"namespace": None}, "given"), ({"namespace": "own"}, "own")]
)
def test_the_given_namespace_is_for_lines_that_name_none(named: dict[str, Any], expected: str) -> None:
    (raw,) = read(json.dumps({"content": "It rained.", **named}).encode(), namespace="given")
    assert isinstance(raw, RawMemory)
    assert raw.namespace == expected
