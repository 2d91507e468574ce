"""Raw memories: what makes one, what refuses one, and their form on the stream."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from memory.errors import InvalidMemory
from memory.messages import (
    RawMemory,
    decode_object,
    from_envelope,
    from_mapping,
    peek_key,
    raw_memory,
    to_envelope,
)
from memory.models import MemoryType, Receipt

MAX_BYTES = 1000
NOW = datetime(2025, 3, 4, 18, 12, 9, 123456, tzinfo=UTC)


def memory_of(**fields: Any) -> RawMemory:
    return raw_memory(**{"content": "It rained.", "max_content_bytes": MAX_BYTES, **fields})


def envelope_of(**fields: Any) -> bytes:
    whole = {"v": 1, "uid": "u", "namespace": "n", "content": "It rained.", **fields}
    return json.dumps({k: v for k, v in whole.items() if v is not ...}).encode()


def test_a_content_alone_makes_a_memory() -> None:
    before = datetime.now(UTC)
    raw = memory_of()
    assert (raw.memory_type, raw.source, raw.namespace, raw.metadata) == (
        MemoryType.EPISODIC,
        "user",
        "default",
        {},
    )
    assert uuid.UUID(raw.uid).version == 7
    assert before <= raw.created_at <= datetime.now(UTC)


def test_memories_without_a_uid_get_different_ones() -> None:
    assert len({memory_of().uid for _ in range(100)}) == 100


def test_a_memory_is_known_by_namespace_and_uid() -> None:
    raw = memory_of(uid="u", namespace="n")
    assert raw.key == ("n", "u")
    assert raw.receipt == Receipt(uid="u", namespace="n")


@pytest.mark.parametrize(
    ("metadata", "importance"),
    [({}, None), ({"importance": None}, None), ({"importance": 1}, 1.0), ({"importance": 0.25}, 0.25)],
)
def test_the_importance_is_the_metadatas(metadata: object, importance: float | None) -> None:
    assert memory_of(metadata=metadata).importance == importance


@pytest.mark.parametrize("importance", [-0.1, 1.1, 2, math.nan, math.inf, True, False, "0.5", [0.5], {}])
def test_an_importance_that_is_no_number_in_0_to_1_is_refused(importance: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^metadata\.importance = .*must be a (finite )?number"):
        memory_of(metadata={"importance": importance})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", " "),
        ("content", "x" * (MAX_BYTES + 1)),
        ("memory_type", "opinion"),
        ("source", ""),
        ("uid", "a\nb"),
        ("namespace", " n"),
        ("created_at", "yesterday"),
        ("metadata", []),
    ],
)
def test_each_bad_field_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        memory_of(**{field: value})
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field} = ")


def test_a_null_field_counts_as_absent() -> None:
    fields = dict.fromkeys(["memory_type", "source", "metadata", "namespace", "created_at", "uid"])
    raw = from_mapping({"content": "It rained.", **fields}, max_content_bytes=MAX_BYTES)
    assert (raw.memory_type, raw.source, raw.metadata) == (MemoryType.EPISODIC, "user", {})


def test_an_unknown_field_is_refused_not_ignored() -> None:
    with pytest.raises(InvalidMemory) as refusal:
        from_mapping({"content": "It rained.", "importence": 0.9}, max_content_bytes=MAX_BYTES)
    known = "content, created_at, memory_type, metadata, namespace, source, uid"
    assert str(refusal.value) == f"importence = 0.9: must be one of {known}"


@pytest.mark.parametrize("data", [{}, {"uid": "u"}, {"content": None}])
def test_a_memory_without_content_is_refused(data: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^content = None: "):
        from_mapping(data, max_content_bytes=MAX_BYTES)


@pytest.mark.parametrize("data", [None, 3, "text", [], [{"content": "x"}]])
def test_what_is_no_object_is_no_memory(data: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^memory = .*must be a JSON object$"):
        from_mapping(data, max_content_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"a": 1} {"b": 2}', "valid JSON"),
        (b"{'a': 1}", "valid JSON"),
        (b'{"a": "\x00"}', "valid JSON"),
        (b'{"a": NaN}', "finite numbers only"),
        (b'{"a": Infinity}', "finite numbers only"),
        (b'{"a": [-Infinity]}', "finite numbers only"),
        (b'{"a": ' + b"9" * 4301 + b"}", "valid JSON"),
        (b'{"a": "\xff"}', "UTF-8 text"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not nested this deep"),
        (b"[]", "a JSON object"),
        (b"null", "a JSON object"),
        (b'"text"', "a JSON object"),
    ],
    ids=lambda v: v[:20] if isinstance(v, bytes) else None,
)
def test_what_is_no_json_object_is_refused_with_the_reason(text: bytes, allowed: str) -> None:
    with pytest.raises(InvalidMemory, match=f"must be .*{allowed}"):
        decode_object(text)


def test_an_overflowing_number_in_json_is_refused_as_not_finite() -> None:
    body = b'{"v":1,"uid":"u","namespace":"n","content":"x","metadata":{"a":1e999}}'
    with pytest.raises(InvalidMemory, match=r"^metadata\.a = inf: must be a finite number$"):
        from_envelope(body, max_content_bytes=MAX_BYTES)


def test_an_envelope_is_compact_utf8_json_with_its_version() -> None:
    raw = memory_of(uid="u", content="Es schneite: 雪", created_at=NOW, metadata={"a": [1]})
    assert to_envelope(raw).decode() == (
        '{"v":1,"uid":"u","namespace":"default","content":"Es schneite: 雪","memory_type":"episodic",'
        '"source":"user","metadata":{"a":[1]},"created_at":"2025-03-04T18:12:09.123456+00:00"}'
    )


@pytest.mark.parametrize("version", [..., None, 0, 2, "1", [1]])
def test_an_envelope_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(InvalidMemory, match=r"^envelope = .*a JSON object of version 1$"):
        from_envelope(envelope_of(v=version), max_content_bytes=MAX_BYTES)


@pytest.mark.parametrize("field", ["uid", "namespace"])
@pytest.mark.parametrize("fields", [{}, {"content": " "}])
def test_an_envelope_without_its_key_is_refused(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        from_envelope(envelope_of(**fields, **{field: ...}), max_content_bytes=MAX_BYTES)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", "\0"),
        ("content", "\ud800"),
        ("content", "x" * (MAX_BYTES + 1)),
        ("metadata", {"\ud800": 1}),
        ("metadata", {"a": {"b": ["\udfff"]}}),
        ("metadata", {"importance": 1.5}),
        ("created_at", "9999-12-31T23:59:59-01:00"),
        ("unknown", 1),
    ],
)
def test_what_reached_the_stream_unvalidated_is_refused_when_read(field: str, value: object) -> None:
    with pytest.raises(InvalidMemory) as refusal:
        from_envelope(envelope_of(**{field: value}), max_content_bytes=MAX_BYTES)
    assert refusal.value.field.startswith(field)


def test_the_key_of_a_broken_envelope_can_still_be_read() -> None:
    assert peek_key(envelope_of(content=None, v=7, metadata=math.nan)) == ("n", "u")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b'"uid"',
        b"{}",
        b"[" * 100_000,
        envelope_of(uid=...),
        envelope_of(namespace=3),
        envelope_of(uid=" "),
        envelope_of(uid="\ud800"),
        envelope_of(uid="\0"),
    ],
    ids=lambda b: b[:20],
)
def test_an_envelope_without_usable_names_has_no_key(body: bytes) -> None:
    assert peek_key(body) is None
