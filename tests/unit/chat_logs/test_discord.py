"""What the reader of Discord does with options, with files of other forms, and with damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree
from tests.unit.chat_logs.reading import messages_of, read_log

ANN = {"id": "1001", "name": "ann_lee", "nickname": "Ann"}


@pytest.mark.parametrize(("own_name", "role"), [("Ann", "user"), ("ann_lee", "user"), ("bob", "other")])
def test_messages_of_the_own_nickname_or_account_are_the_users(
    tmp_path: Path, own_name: str, role: str
) -> None:
    _write(tmp_path / "a.json", _export([_said(1)]))
    [message] = messages_of(tmp_path, ReadOptions(own_name=own_name))
    assert (message.author, message.role) == ("Ann", role)


def test_parts_of_a_channel_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    _write(tmp_path / "a [part 10].json", _export([_said(1000), _said(1001)]))
    _write(tmp_path / "a [part 2].json", _export([_said(99)]))
    _write(tmp_path / "a.json", _export([_said(7), _said(98)]))
    assert [message.message_id for message in messages_of(tmp_path)] == ["7", "98", "99", "1000", "1001"]


def test_the_channel_may_stand_after_the_messages(tmp_path: Path) -> None:
    export = _export([_said(1), _said(2)])
    in_other_order = {key: export[key] for key in ("guild", "messages", "channel")}
    _write(tmp_path / "a.json", in_other_order)
    assert [(m.conversation_id, m.message_id) for m in messages_of(tmp_path)] == [
        ("10", "1"),
        ("10", "2"),
    ]


def test_a_truncated_file_gives_what_it_has_and_a_flaw(tmp_path: Path) -> None:
    body = json.dumps(_export([_said(1), _said(2)]))
    (tmp_path / "a.json").write_text(body[: body.index('"2"') + 10])
    message, flaw = read_log(tmp_path)
    assert isinstance(message, ChatMessage)
    assert message.message_id == "1"
    assert isinstance(flaw, Flaw)
    assert (flaw.place.at, "not saved or downloaded completely" in flaw.reason) == ("after message 1", True)


def test_a_file_cut_off_before_its_messages_is_a_flaw_and_the_next_is_read(tmp_path: Path) -> None:
    body = json.dumps(_export([_said(1)]))
    (tmp_path / "a.json").write_text(body[: body.index('"messages"') + 14])
    _write(tmp_path / "b.json", _export([_said(2)]))
    flaw, message = read_log(tmp_path)
    assert isinstance(flaw, Flaw)
    assert flaw.place.file.endswith("a.json")
    assert isinstance(message, ChatMessage)


def test_an_answer_to_a_message_of_another_channel_has_no_parent(tmp_path: Path) -> None:
    _write(tmp_path / "a.json", _export([_said(1, reference={"messageId": "5", "channelId": "11"})]))
    [message] = messages_of(tmp_path)
    assert message.parent_id is None


def test_an_export_beside_a_data_package_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "c11").mkdir()
    _write(
        tmp_path / "c11/messages.json", [{"ID": 3, "Timestamp": "2023-11-14 22:13:21", "Contents": "mine"}]
    )
    _write(tmp_path / "c11/channel.json", {"id": "11"})
    _write(tmp_path / "a.json", _export([_said(1)]))
    with open_tree(tmp_path) as tree:
        found = detect(tree).found
        read = [message for each in found for message in each.reader.read(tree, each.members, ReadOptions())]
    texts = [message.text for message in read]
    assert texts == ["mine", "tea"]


def test_a_damaged_list_of_channels_costs_a_title_but_no_message(tmp_path: Path) -> None:
    (tmp_path / "c11").mkdir()
    _write(tmp_path / "c11/messages.json", [{"ID": 3, "Timestamp": "never", "Contents": "mine"}])
    (tmp_path / "c11/channel.json").write_text('{"id": "11", "na')
    flaw, message = read_log(tmp_path)
    assert isinstance(flaw, Flaw)
    assert flaw.place.file.endswith("channel.json")
    assert isinstance(message, ChatMessage)
    assert (message.conversation_id, message.title, message.created_at) == ("11", None, None)


def _export(messages: list[dict[str, Any]]) -> dict[str, Any]:
    guild, channel = {"id": "9", "name": "Tea House"}, {"id": "10", "name": "general"}
    return {"guild": guild, "channel": channel, "messages": messages, "messageCount": len(messages)}


def _said(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "type": "Default", "content": "tea", "author": ANN, **more}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
