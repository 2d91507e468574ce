"""Messages become memories: the same one always under the same uid, with its place in its conversation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ingest.chat_logs.memories import MessageMemories
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place
from memory.messages import RawMemory
from memory.models import MemoryType

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THEN = datetime(2020, 5, 17, 12, tzinfo=UTC)


def message(text: str = "hi", conversation_id: str = "c", **fields: Any) -> ChatMessage:
    given = {"title": None, "role": "user", "place": Place(file="log"), **fields}
    return ChatMessage(conversation_id=conversation_id, text=text, **given)


def made(messages: Iterable[ChatMessage | Flaw], *include: Kind, most: int = 1000) -> list[RawMemory | Flaw]:
    converter = MessageMemories(
        "chat", namespace="ns", max_content_bytes=most, imported_at=NOW, include=include
    )
    return list(converter.memories(messages))


def memories(messages: Iterable[ChatMessage | Flaw], *include: Kind) -> list[RawMemory]:
    found = made(messages, *include)
    assert all(isinstance(memory, RawMemory) for memory in found), found
    return [memory for memory in found if isinstance(memory, RawMemory)]


def test_a_message_keeps_what_is_known_of_it() -> None:
    [memory] = memories(
        [
            message(
                " It is Oolong. ",
                title="Tea",
                role="assistant",
                author="bot",
                message_id="m2",
                parent_id="m1",
                created_at=THEN,
                details={"model": "x"},
            )
        ]
    )
    assert (memory.uid, memory.source, memory.namespace) == ("chat:c:m2", "chat:c", "ns")
    assert (memory.content, memory.memory_type, memory.created_at) == (
        "It is Oolong.",
        MemoryType.RESPONSE,
        THEN,
    )
    assert memory.metadata == {
        "conversation": "c",
        "title": "Tea",
        "position": 0,
        "role": "assistant",
        "author": "bot",
        "message": "m2",
        "reply_to": "m1",
        "model": "x",
    }


def test_equal_messages_without_ids_are_told_apart_and_named_the_same_each_time() -> None:
    log = [message("again", created_at=THEN), message("again", created_at=THEN), message("other")]
    uids = [memory.uid for memory in memories(log)]
    assert len(set(uids)) == 3
    assert uids == [memory.uid for memory in memories(log)]
    assert uids[1] == f"{uids[0]}:2"


def test_messages_differ_by_each_of_what_names_them() -> None:
    log = [
        message("a", created_at=THEN, author="Ann"),
        message("b", created_at=THEN, author="Ann"),
        message("a", created_at=NOW, author="Ann"),
        message("a", created_at=THEN, author="Bob"),
        message("a", "d", created_at=THEN, author="Ann"),
    ]
    assert len({memory.uid for memory in memories(log)}) == len(log)


def test_positions_do_not_depend_on_what_is_left_out() -> None:
    kinds: list[Kind] = ["shown", "system", "shown", "tool", "hidden", "shown"]
    log = [message(f"text {n}", kind=kind, message_id=str(n)) for n, kind in enumerate(kinds)]
    log.insert(2, message(" \n", message_id="blank"))
    assert [m.metadata["position"] for m in memories(log)] == [0, 3, 6]
    everything = memories(log, "system", "tool", "hidden")
    assert [m.metadata["position"] for m in everything] == [0, 1, 3, 4, 5, 6]
    assert [m.metadata.get("kind") for m in everything] == [None, "system", None, "tool", "hidden", None]


def test_positions_go_on_where_a_conversation_is_taken_up_again() -> None:
    log = [message("1"), message("1", "d"), message("2"), message("2", "d")]
    assert [m.metadata["position"] for m in memories(log)] == [0, 0, 1, 1]


def test_a_message_without_a_date_has_that_of_the_one_before_in_its_conversation() -> None:
    log = [message("1"), message("2", created_at=THEN), message("3"), message("4", "d")]
    found = memories(log)
    assert [m.created_at for m in found] == [NOW, THEN, THEN, NOW]
    assert [m.metadata.get("dated") for m in found] == [False, None, False, False]


def test_a_zone_that_is_not_known_is_said() -> None:
    log = [message("1", created_at=THEN, tz_known=False), message("2", created_at=THEN)]
    assert [m.metadata.get("tz_known") for m in memories(log)] == [False, None]


def test_ids_that_are_no_names_are_hashed() -> None:
    log = [
        message("1", "c" * 600, message_id="m"),
        message("2", "a\nb", message_id="m"),
        message("3", " c", message_id="m"),
    ]
    found = memories(log)
    assert len({m.uid for m in found}) == len({m.source for m in found}) == 3
    assert all(m.uid.startswith("chat:sha256:") and m.source.startswith("chat:sha256:") for m in found[:2])


def test_what_can_be_no_memory_is_a_flaw_and_the_rest_goes_on() -> None:
    bad = Flaw(place=Place(file="log"), reason="bad")
    long, other, last = made([message("x" * 1001), bad, message("y")])
    assert isinstance(long, Flaw)
    assert "at most 1000 bytes" in long.reason
    assert other is bad
    assert isinstance(last, RawMemory)


def test_no_store_has_trouble_with_what_is_made() -> None:
    [memory] = memories([message("a\x00b\ud800", title="t\x00\ud800", message_id="m")])
    assert memory.content == "ab\ufffd"
    assert memory.metadata["title"] == "t\ufffd"
