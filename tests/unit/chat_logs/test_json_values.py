"""JSON as a stream: what is whole is read, however the rest is."""

from __future__ import annotations

import io
import itertools
import json
import re
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.chat_logs.instants import from_epoch
from ingest.chat_logs.json_values import beginning, values
from ingest.chat_logs.trees import Member, UnreadableMember, open_tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": {"b": 1}, "c": [2], "d": 3}', {"a": {"b": 1}, "c": [2], "d": 3}),
        (b'[{"a": 1}, {"b": 2}, {"c"', [{"a": 1}, {"b": 2}, {}]),
        (b'{"a": [], "b": [{"c": {}}, {"d": "e', {"a": [], "b": [{"c": {}}, {}]}),
        (b'{"a": 1}\n{"b": 2}', {"a": 1}),
        (b"[] {", []),
        (b"1 {}", None),
        (b'"text"', None),
        (b"", None),
    ],
)
def test_the_first_value_is_built_as_far_as_the_text_goes(text: bytes, value: Any) -> None:
    assert beginning(text) == value


@pytest.mark.parametrize("number", ["9" * 19, "1" * 5000, "1e99999999999999999999", "-1E400"])
def test_a_number_beyond_all_bounds_ends_its_file_and_nothing_else(tmp_path: Path, number: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(f'[{{"id": 9007199254740993}}, {{"id": {number}}}, {{}}]')
    found = []
    with open_tree(path) as tree, pytest.raises(UnreadableMember, match="this is no JSON from here on"):
        found.extend(values(tree.members[0], "item"))
    assert found == [{"id": 2**53 + 1}]


@pytest.mark.parametrize("seconds", ["1e9999999", "1e900000", float("inf"), float("nan"), True, "", []])
def test_what_is_no_time_is_no_instant(seconds: object) -> None:
    assert from_epoch(seconds) is None


@pytest.mark.parametrize(
    "nested",
    ['{"a":' * 50_000, "[" * 50_000, '[{"a":"[[",' + '"b":[{' * 2000],
    ids=["objects", "lists", "behind a text"],
)
def test_what_is_nested_very_deep_is_refused(tmp_path: Path, nested: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(nested)
    with open_tree(path) as tree, pytest.raises(UnreadableMember, match="nested over 1000 deep"):
        list(values(tree.members[0], "item"))


@pytest.mark.parametrize("before", ["", '"}]', 'x" "', "\\"], ids=["plain", "closed", "quotes", "backslash"])
def test_brackets_within_texts_are_no_nesting(tmp_path: Path, before: str) -> None:
    path = tmp_path / "log.json"
    text = before + "[{" * 300_000 + '\\"'
    path.write_text(json.dumps([text, text]))
    with open_tree(path) as tree:
        assert list(values(tree.members[0], "item")) == [text, text]


_ESCAPES = st.lists(
    st.sampled_from(
        [
            r"\ud83d\ude00",
            r"\uD83D\uDE00",
            r"\ud83d",
            r"\ude00",
            r"\uDC00",
            r"\\",
            r"\\ud83d",
            r"\n",
            r"\u0041",
            "x",
            "u",
            "d83d",
        ]
    ),
    max_size=30,
).map("".join)


class InPieces(io.BytesIO):
    """Gives few bytes at a time."""

    def __init__(self, body: bytes, sizes: list[int]) -> None:
        super().__init__(body)
        self._sizes = itertools.cycle(sizes)

    def read(self, _size: int | None = -1) -> bytes:
        return super().read(next(self._sizes))


@given(_ESCAPES, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_half_a_character_is_replaced_and_a_whole_one_kept_wherever_chunks_end(
    escapes: str, sizes: list[int]
) -> None:
    body = f'["{escapes}", "{escapes}"]'.encode()
    opener = partial(nullcontext, InPieces(body, sizes))
    member = Member(name="log", shown="log", n_bytes=len(body), opener=opener)
    expected = [re.sub("[\ud800-\udfff]", "\ufffd", text) for text in json.loads(body)]
    assert list(values(member, "item")) == expected
    assert beginning(body) == expected


def test_a_very_long_run_of_backslashes_is_read_in_time(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    text = "\\" * 3_000_000
    path.write_text(json.dumps([text, "\\" + "x" * 300_000]))
    with open_tree(path) as tree:
        assert list(values(tree.members[0], "item")) == [text, "\\" + "x" * 300_000]
