"""The raw memory: validated, not yet embedded, and its form on the stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from memory.errors import InvalidMemory
from memory.models import Memory, MemoryId, MemoryType, Metadata, Receipt
from memory.validation import (
    check_instant,
    check_metadata,
    check_name,
    check_number,
    check_text,
    check_type,
)

DEFAULT_NAMESPACE = "default"
DEFAULT_SOURCE = "user"
ENVELOPE_VERSION = 1
_HIGHEST_POSITION = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMemory:
    """A memory as a producer hands it over. Make one with `raw_memory`, which validates."""

    uid: str
    namespace: str
    content: str
    memory_type: MemoryType
    source: str
    metadata: Metadata
    created_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """The idempotency key: a memory exists once for each (namespace, uid)."""
        return (self.namespace, self.uid)

    @property
    def importance(self) -> float | None:
        """`metadata["importance"]`, 0..1, or `None` where absent (it counts as neutral)."""
        value = self.metadata.get("importance")
        return None if value is None else float(value)

    @property
    def position(self) -> int | None:
        """`metadata["position"]`, its place in the conversation that `source` names; `None` where absent."""
        value = self.metadata.get("position")
        is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_POSITION
        return value if is_one else None

    def stored_as(self, memory_id: MemoryId) -> Memory:
        """Return the memory that this becomes in a new row."""
        return Memory(
            id=memory_id,
            uid=self.uid,
            namespace=self.namespace,
            content=self.content,
            memory_type=self.memory_type,
            source=self.source,
            metadata=self.metadata,
            importance=self.importance,
            created_at=self.created_at,
            last_access_at=None,
            version=1,
        )

    @property
    def receipt(self) -> Receipt:
        """What the producer gets back."""
        return Receipt(uid=self.uid, namespace=self.namespace)


def raw_memory(
    content: object,
    *,
    max_content_bytes: int,
    memory_type: object = MemoryType.EPISODIC,
    source: object = DEFAULT_SOURCE,
    metadata: object = None,
    uid: object = None,
    namespace: object = DEFAULT_NAMESPACE,
    created_at: object = None,
) -> RawMemory:
    """Validate what a producer hands over.

    Args:
        content: text, not blank, at most `max_content_bytes` in UTF-8.
        max_content_bytes: the bound on `content`.
        memory_type: a `MemoryType` or its name in any case.
        source: where it comes from, such as `user` or `slack:general`.
        metadata: a JSON object; its `importance`, if there, is a number in 0..1.
        uid: the idempotency key in its namespace; a new UUIDv7 where absent.
        namespace: whose memory it is.
        created_at: a datetime or ISO 8601 text, without a zone taken as UTC; now where absent.

    Raises:
        InvalidMemory: names the field, its value and what is allowed.

    """
    checked = check_metadata(metadata)
    if checked.get("importance") is not None:
        check_number("metadata.importance", checked["importance"], low=0, high=1)
    return RawMemory(
        uid=str(uuid_utils.uuid7()) if uid is None else check_name("uid", uid),
        namespace=check_name("namespace", namespace),
        content=check_text("content", content, max_bytes=max_content_bytes),
        memory_type=check_type(memory_type),
        source=check_name("source", source),
        metadata=checked,
        created_at=datetime.now(UTC) if created_at is None else check_instant("created_at", created_at),
    )


def raw_of(memory: Memory) -> RawMemory:
    """Return the raw memory that a stored one was, or was changed to."""
    return RawMemory(
        uid=memory.uid,
        namespace=memory.namespace,
        content=memory.content,
        memory_type=memory.memory_type,
        source=memory.source,
        metadata=memory.metadata,
        created_at=memory.created_at,
    )


FIELDS = frozenset({"content", "memory_type", "source", "metadata", "uid", "created_at", "namespace"})
"""What a JSON memory may hold; only `content` must be there."""


def from_mapping(data: object, *, max_content_bytes: int) -> RawMemory:
    """Validate one decoded JSON object with the keys of `FIELDS`. An unknown key is refused, not ignored."""
    if not isinstance(data, dict):
        raise InvalidMemory(field="memory", value=data, allowed="a JSON object")
    if not data.keys() <= FIELDS:
        unknown = sorted(set(data) - FIELDS, key=str)
        raise InvalidMemory(
            field=str(unknown[0]), value=data[unknown[0]], allowed=f"one of {', '.join(sorted(FIELDS))}"
        )
    if "content" not in data:
        raise InvalidMemory(field="content", value=None, allowed="there")
    given = {k: v for k, v in data.items() if v is not None and k != "content"}
    return raw_memory(data["content"], max_content_bytes=max_content_bytes, **given)


def decode_object(text: str | bytes, *, field: str = "memory") -> dict[str, Any]:
    """Decode one JSON object, as on a line of a JSONL file; `field` names it. NaN and Infinity are refused.

    Raises:
        InvalidMemory: it is none; says why.

    """
    data = _load(text)
    if not isinstance(data, dict):
        raise InvalidMemory(field=field, value=data, allowed="a JSON object")
    return data


def to_envelope(raw: RawMemory) -> bytes:
    """Encode for the stream: UTF-8 JSON with a version, so that a later reader can tell."""
    return _ENCODER.encode(
        {
            "v": ENVELOPE_VERSION,
            "uid": raw.uid,
            "namespace": raw.namespace,
            "content": raw.content,
            "memory_type": raw.memory_type.value,
            "source": raw.source,
            "metadata": raw.metadata,
            "created_at": raw.created_at.isoformat(),
        }
    ).encode()


def from_envelope(body: bytes, *, max_content_bytes: int) -> RawMemory:
    """Decode and validate again: whoever can write to Redis can write anything.

    Raises:
        InvalidMemory: not an envelope, of an unknown version, or not a valid memory.

    """
    data = decode_object(body)
    if data.pop("v", None) != ENVELOPE_VERSION:
        raise InvalidMemory(
            field="envelope", value=body, allowed=f"a JSON object of version {ENVELOPE_VERSION}"
        )
    for field in ("uid", "namespace"):
        if field not in data:
            raise InvalidMemory(field=field, value=None, allowed="there")
    return from_mapping(data, max_content_bytes=max_content_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Whose memory it is, for a body that may be broken; `None` for what it does not say usably."""

    namespace: str | None = None
    uid: str | None = None
    source: str | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        """(namespace, uid), `None` where either is missing."""
        return None if self.namespace is None or self.uid is None else (self.namespace, self.uid)


def peek_label(body: bytes) -> Label:
    """Return the label of an envelope that may be broken."""
    try:
        return label_of(json.loads(body))
    except (ValueError, RecursionError):
        return Label()


def label_of(data: object) -> Label:
    """Return the label in a decoded envelope or search hit, or in anything else that was decoded."""
    if not isinstance(data, dict):
        return Label()
    return Label(
        namespace=_usable_name(data.get("namespace")),
        uid=_usable_name(data.get("uid")),
        source=DEFAULT_SOURCE if data.get("source") is None else _usable_name(data["source"]),
    )


def peek_key(body: bytes) -> tuple[str, str] | None:
    """Return (namespace, uid) of an envelope that may be broken; `None` where it has no usable ones."""
    return peek_label(body).key


def _usable_name(value: object) -> str | None:
    try:
        return check_name("name", value)
    except InvalidMemory:
        return None


def _load(text: str | bytes) -> object:
    try:
        return _DECODER.decode(text if isinstance(text, str) else _decoded(text))
    except InvalidMemory:
        raise
    except UnicodeDecodeError as error:
        raise InvalidMemory(field="memory", value=text, allowed=f"UTF-8 text ({error.reason})") from None
    except RecursionError:
        raise InvalidMemory(field="memory", value=text, allowed="JSON that is not nested this deep") from None
    except ValueError as error:
        raise InvalidMemory(field="memory", value=text, allowed=f"valid JSON ({error})") from None


def _decoded(text: bytes) -> str:
    is_plain = text[:1] == b"{" and text[1:2] != b"\0"  # as nearly all: finding out costs as much as decoding
    return text.decode("utf-8" if is_plain else json.detect_encoding(text), "surrogatepass")


def _refuse_constant(name: str) -> object:
    raise InvalidMemory(field="memory", value=name, allowed="JSON with finite numbers only")


# Made once: the functions of `json` make a new one for each call with options.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
