"""Raw memories on the stream: any valid one comes back as it was, and no bytes can do harm."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from memory.errors import InvalidMemory
from memory.messages import RawMemory, from_envelope, peek_key, raw_memory, to_envelope
from memory.models import MemoryType

MAX_BYTES = 4096
storable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(storable, max_size=40)
contents = st.text(storable, min_size=1, max_size=200).filter(str.strip)
names = st.text(storable, min_size=1, max_size=40).filter(lambda t: t.isprintable() and t == t.strip())
leaves = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
trees = st.recursive(
    leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(texts, t, max_size=3), max_leaves=6
)
metadata = st.builds(
    lambda tree, importance: {**tree, **importance},
    st.dictionaries(texts.filter(lambda key: key != "importance"), trees, max_size=4),
    st.fixed_dictionaries({}, optional={"importance": st.floats(0, 1) | st.sampled_from([0, 1, None])}),
)
instants = st.datetimes(timezones=st.just(UTC)) | st.just(datetime.max.replace(tzinfo=UTC))
raws = st.builds(
    raw_memory,
    contents,
    max_content_bytes=st.just(MAX_BYTES),
    memory_type=st.sampled_from(MemoryType),
    source=names,
    metadata=metadata,
    uid=st.none() | names,
    namespace=names,
    created_at=instants,
)
wild_leaves = st.floats() | st.integers() | st.text(st.characters()) | st.booleans() | st.none()
wild = st.recursive(
    wild_leaves,
    lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(st.characters()), t, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from(
    ["v", "uid", "namespace", "content", "memory_type", "source", "metadata", "created_at"]
)


def read_or_refused(body: bytes) -> RawMemory | None:
    """Return the memory of `body`, `None` where it is refused. Nothing else may be raised."""
    try:
        return from_envelope(body, max_content_bytes=MAX_BYTES)
    except InvalidMemory:
        return None


@given(raw=raws)
def test_any_valid_memory_comes_back_exactly_as_it_was(raw: RawMemory) -> None:
    back = from_envelope(to_envelope(raw), max_content_bytes=MAX_BYTES)
    assert back == raw
    assert repr(back.metadata) == repr(raw.metadata)  # == alone takes True for 1 and -0.0 for 0.0
    assert back.created_at.tzinfo is UTC


@given(raw=raws)
def test_the_key_of_any_valid_memory_can_be_peeked_at(raw: RawMemory) -> None:
    assert peek_key(to_envelope(raw)) == raw.key


@given(body=st.binary(max_size=200))
@example(body=b"")
@example(body=b"\xef\xbb\xbf{}")
@example(body=b"\xff\xfe{\x00}\x00")
def test_any_bytes_are_refused_cleanly(body: bytes) -> None:
    assert read_or_refused(body) is None
    peek_key(body)


@given(tree=wild)
def test_any_json_is_refused_cleanly(tree: Any) -> None:
    body = json.dumps(tree).encode()
    assert read_or_refused(body) is None
    peek_key(body)


@settings(max_examples=300)
@given(raw=raws, field=fields, value=wild)
def test_an_envelope_with_any_value_in_one_field_is_read_or_refused(
    raw: RawMemory, field: str, value: Any
) -> None:
    body = json.dumps({**json.loads(to_envelope(raw)), field: value}).encode()
    back = read_or_refused(body)
    peek_key(body)
    if back is not None:
        assert from_envelope(to_envelope(back), max_content_bytes=MAX_BYTES) == back


@settings(max_examples=300)
@given(raw=raws, data=st.data())
def test_an_envelope_with_any_byte_changed_is_read_or_refused(raw: RawMemory, data: st.DataObject) -> None:
    body = bytearray(to_envelope(raw))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(body))
    peek_key(bytes(body))
