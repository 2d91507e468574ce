"""What people hand over is taken, or refused with the field, the value and what is allowed."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.errors import InvalidMemory
from memory.models import MemoryType
from memory.validation import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_METADATA_KEYS,
    NAME_PATTERN,
    TEXT_PATTERN,
    check_instant,
    check_limit,
    check_metadata,
    check_name,
    check_number,
    check_text,
    check_type,
    check_types,
)

LONE_SURROGATE = "\ud800"


def nested(depth: int, *, kind: str) -> Any:
    """Return metadata that is `depth` objects or lists deep, the outermost object included."""
    value: Any = 1
    for _ in range(depth - 1):
        value = {"a": value} if kind == "objects" else [value]
    return {"a": value}


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r", "\u3000\u2003"])
def test_a_blank_content_is_refused_with_the_fields_name(blank: str) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_text("content", blank, max_bytes=100)
    assert str(refusal.value) == f"content = {blank!r}: must be text that is not blank"


@pytest.mark.parametrize("value", [None, 3, True, b"bytes", ["text"], {"text": 1}])
def test_what_is_no_text_is_refused_with_its_value(value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_text("content", value, max_bytes=100)
    assert str(refusal.value) == f"content = {value!r}: must be text"


def test_text_is_bounded_in_bytes_not_in_characters() -> None:
    assert check_text("content", "é" * 5, max_bytes=10) == "é" * 5
    with pytest.raises(InvalidMemory, match=r"^content = .*at most 9 bytes, not 10$"):
        check_text("content", "é" * 5, max_bytes=9)


@pytest.mark.parametrize(("text", "why"), [("a\0b", "NUL"), (f"a{LONE_SURROGATE}b", "surrogates")])
def test_text_that_a_store_cannot_hold_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidMemory, match=rf"^content = .*must be text without .*{why}"):
        check_text("content", text, max_bytes=100)


def test_a_refusal_shows_a_long_value_shortened() -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_text("content", "long " * 100_000, max_bytes=100)
    assert len(refusal.value.shown_value) == 80
    assert refusal.value.shown_value.endswith("…")


@pytest.mark.parametrize("name", ["a", "slack:general", "naïve 名前", "x" * 512])
def test_a_printable_name_is_taken_as_it_is(name: str) -> None:
    assert check_name("uid", name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", "a\nb", "a\tb", "a\0", "\u200b", "\x7f", LONE_SURROGATE, "x" * 513, 7, None],
)
def test_a_name_that_could_be_misread_is_refused(name: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^namespace = "):
        check_name("namespace", name)


@pytest.mark.parametrize("spelling", ["task", "TASK", "TaSk", MemoryType.TASK])
def test_a_type_is_known_in_any_case(spelling: str) -> None:
    assert check_type(spelling) is MemoryType.TASK


@pytest.mark.parametrize("value", ["", "opinion", "task ", None, 3, True, ["task"]])
def test_an_unknown_type_is_refused_with_every_known_one(value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_type(value)
    known = "episodic, semantic, reflection, task, preference, response"
    assert str(refusal.value) == f"memory_type = {value!r}: must be one of {known}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("task", (MemoryType.TASK,)),
        (["Task", "semantic"], (MemoryType.TASK, MemoryType.SEMANTIC)),
        (iter(["task"]), (MemoryType.TASK,)),
    ],
)
def test_types_are_one_or_several_or_all(given: object, expected: object) -> None:
    assert check_types(given) == expected


@pytest.mark.parametrize("value", [[], (), 7, ["task", "opinion"], [None]])
def test_types_that_would_match_nothing_are_refused(value: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^memory_types? = "):
        check_types(value)


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.5, 1.0])
def test_a_number_at_or_between_the_bounds_is_taken_as_float(value: float) -> None:
    checked = check_number("strength", value, low=0, high=1)
    assert checked == value
    assert isinstance(checked, float)


@pytest.mark.parametrize(
    "value", [-0.001, 1.001, -1, 2, math.nan, math.inf, -math.inf, True, False, "0.5", None, [0.5]]
)
def test_what_is_no_number_within_the_bounds_is_refused(value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_number("strength", value, low=0, high=1)
    assert str(refusal.value) == f"strength = {value!r}: must be a number in 0..1"


@pytest.mark.parametrize("value", [1, 1000])
def test_a_limit_at_its_bounds_is_taken(value: int) -> None:
    assert check_limit(value) == value


@pytest.mark.parametrize("value", [0, -1, 1001, True, 5.0, "5", None])
def test_a_limit_that_is_no_whole_number_in_its_bounds_is_refused(value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_limit(value)
    assert str(refusal.value) == f"limit = {value!r}: must be a whole number in 1..1000"


def test_absent_metadata_is_empty() -> None:
    assert check_metadata(None) == {}


def test_checked_metadata_shares_nothing_with_what_was_given() -> None:
    given = {"tags": ["a"], "pair": (1, 2)}
    checked = check_metadata(given)
    given["tags"].append("b")  # type: ignore[attr-defined]
    assert checked == {"tags": ["a"], "pair": [1, 2]}


@pytest.mark.parametrize("value", ["text", 3, [], [("a", 1)], True])
def test_metadata_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^metadata = .*must be a JSON object$"):
        check_metadata(value)


@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_metadata_may_be_as_deep_as_the_bound_and_no_deeper(kind: str) -> None:
    assert check_metadata(nested(MAX_METADATA_DEPTH, kind=kind))
    with pytest.raises(InvalidMemory, match=r"^metadata\.a.* nested at most 8 deep$"):
        check_metadata(nested(MAX_METADATA_DEPTH + 1, kind=kind))


def test_metadata_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["me"] = value
    with pytest.raises(InvalidMemory, match="nested at most 8 deep"):
        check_metadata(value)


def test_the_keys_of_nested_objects_count_too() -> None:
    inner = {str(i): i for i in range(MAX_METADATA_KEYS - 1)}
    assert check_metadata({"inner": inner}) == {"inner": inner}
    with pytest.raises(InvalidMemory, match=r"^metadata = .*at most 128 keys in all$"):
        check_metadata({"inner": [{**inner, "one more": 1}]})


def test_metadata_is_bounded_in_bytes_not_in_characters() -> None:
    room = MAX_METADATA_BYTES - len('{"a": ""}')
    assert check_metadata({"a": "é" * (room // 2)})
    with pytest.raises(InvalidMemory, match=rf"^metadata = .*at most {MAX_METADATA_BYTES} bytes of JSON"):
        check_metadata({"a": "é" * (room // 2 + 1)})


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1, 1.7976931348623157e308, 5e-324, "\x01", "é😀"])
def test_metadata_keeps_every_value_that_all_stores_can_hold(value: object) -> None:
    assert check_metadata({"a": value}) == {"a": value}


UNSTORABLE: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    2**63,
    -(2**63) - 1,
    10**5000,
    "a\0b",
    LONE_SURROGATE,
    b"bytes",
    {1, 2},
    datetime(2025, 1, 1, tzinfo=UTC),
    object(),
]


@pytest.mark.parametrize(
    "value", UNSTORABLE, ids=lambda v: ascii(v)[:20] if not isinstance(v, int) else "int"
)
@pytest.mark.parametrize(
    ("wrap", "field"),
    [
        (lambda v: {"a": v}, "metadata.a"),
        (lambda v: {"a": {"b": [0, v]}}, "metadata.a.b[1]"),
        (lambda v: {"a": ({"b": v},)}, "metadata.a[0].b"),
    ],
    ids=["flat", "in a list", "in an object"],
)
def test_a_metadata_value_that_a_store_cannot_hold_is_refused_with_its_place(
    wrap: Any, field: str, value: object
) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        check_metadata(wrap(value))
    assert refusal.value.field == field


@pytest.mark.parametrize("key", ["a\0b", LONE_SURROGATE, 1, None, 1.5, ("a",)])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"a": [m]}], ids=["flat", "nested"])
def test_a_metadata_key_that_a_store_cannot_hold_is_refused(wrap: Any, key: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^metadata"):
        check_metadata(wrap({key: 1}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2025-03-04T18:12:09+00:00", datetime(2025, 3, 4, 18, 12, 9, tzinfo=UTC)),
        ("2025-03-04T18:12:09Z", datetime(2025, 3, 4, 18, 12, 9, tzinfo=UTC)),
        ("2025-03-04T18:12:09", datetime(2025, 3, 4, 18, 12, 9, tzinfo=UTC)),
        ("2025-03-04", datetime(2025, 3, 4, tzinfo=UTC)),
        ("2025-03-04T18:12:09.123456-05:30", datetime(2025, 3, 4, 23, 42, 9, 123456, tzinfo=UTC)),
        ("0001-01-01T00:00:00", datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999", datetime.max.replace(tzinfo=UTC)),
        (datetime(2025, 3, 4, 18), datetime(2025, 3, 4, 18, tzinfo=UTC)),  # noqa: DTZ001 (a naive one is the point)
        (
            datetime(2025, 3, 4, 1, tzinfo=timezone(timedelta(hours=2))),
            datetime(2025, 3, 3, 23, tzinfo=UTC),
        ),
    ],
)
def test_an_instant_becomes_utc_and_one_without_a_zone_counts_as_utc(
    given: object, expected: datetime
) -> None:
    checked = check_instant("created_at", given)
    assert checked == expected
    assert checked.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "infinity",
        "0000-01-01",
        "10000-01-01",
        "2025-13-01",
        "2025-02-30",
        "2025-03-04T25:00:00",
        "2025-03-04T18:12:09+99:99",
        " 2025-03-04",
        "2025-03-04\0",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        1741111929,
        True,
        ["2025-03-04"],
    ],
)
def test_an_instant_that_cannot_be_kept_is_refused(value: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^created_at = .*must be an ISO 8601 date and time"):
        check_instant("created_at", value)


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(st.characters(), max_size=20)
)


def _judged(value: Any) -> Any:
    """Return what the checks make of it, or the reason why they refuse it."""
    try:
        return check_metadata(value)
    except InvalidMemory as refused:
        return refused.field, refused.allowed


@given(
    st.dictionaries(
        st.text(st.characters(), max_size=8) | st.integers(0, 3),
        _LEAVES | st.lists(_LEAVES, max_size=2) | st.sampled_from(["\x01" * 3000, "x" * 17_000, "é" * 9000]),
        max_size=40,
    )
)
def test_what_most_metadata_is_like_is_judged_as_anything_else_is(metadata: dict[Any, Any]) -> None:
    assert _judged(metadata) == _judged(MappingProxyType(metadata))
    if metadata:
        assert _judged(metadata) is not metadata


def test_the_patterns_say_what_the_checks_do_of_every_character() -> None:
    refused = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
    for character in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(character)
        if category not in {"Cn", "Cs"}:  # not assigned yet, some to be format characters; no text at all
            is_name = bool(re.search(NAME_PATTERN, f"a{character}b"))
            assert is_name == (category not in refused or character == " "), ascii(character)
            assert is_name != _is_refused(check_name, "name", f"a{character}b")
        is_text = bool(re.search(TEXT_PATTERN, character))
        assert is_text == (character != "\0" and not character.isspace()), ascii(character)
    for name in (" a", "a ", "", " ", "a\n"):
        assert _is_refused(check_name, "name", name)
    assert check_name("name", "a  b") == "a  b"


def _is_refused(check: Callable[[str, object], object], *arguments: str) -> bool:
    try:
        check(*arguments)
    except InvalidMemory:
        return True
    return False
