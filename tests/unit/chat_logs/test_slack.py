"""What a reader of Slack's export does with options, with files that are no part of it, and with damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree
from tests.unit.chat_logs.reading import messages_of, read_log


def test_messages_of_the_own_name_are_the_users(tmp_path: Path) -> None:
    _write(tmp_path, "users.json", [{"id": "U1", "name": "ann"}, {"id": "U2", "name": "bob"}])
    _write(
        tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001", "U1"), _said("1700000000.000002", "U2")]
    )
    messages = messages_of(tmp_path, ReadOptions(own_name="bob"))
    assert [(message.author, message.role) for message in messages] == [("ann", "other"), ("bob", "user")]


def test_only_lists_and_daily_files_belong_to_an_export(tmp_path: Path) -> None:
    _write(tmp_path, "channels.json", [{"id": "C1", "name": "tea"}])
    _write(tmp_path, "integration_logs.json", [{"user_id": "U1", "change_type": "added"}])
    _write(tmp_path, "tea/canvas.json", [{"id": "F1"}])
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001")])
    with open_tree(tmp_path) as tree:
        detected = detect(tree)
    [found] = detected.found
    assert [member.name for member in found.members] == ["channels.json", "tea/2023-11-14.json"]
    assert [Path(flaw.place.file).name for flaw in detected.flaws] == ["integration_logs.json", "canvas.json"]


def test_daily_files_of_something_else_are_no_export(tmp_path: Path) -> None:
    _write(tmp_path, "users.json", [{"id": "U1"}])
    _write(tmp_path, "diary/2023-11-14.json", [{"type": "message", "text": "Dear diary", "ts": 1}])
    _write(tmp_path, "diary/2023-11-15.json", {"ts": "1700000000.000001"})
    with open_tree(tmp_path) as tree:
        assert detect(tree).found == ()


def test_an_export_with_no_lists_at_all_is_read(tmp_path: Path) -> None:
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001", "U1")])
    [message] = messages_of(tmp_path)
    assert (message.conversation_id, message.title, message.author) == ("tea", "tea", "U1")


def test_an_empty_day_does_not_hide_the_others(tmp_path: Path) -> None:
    _write(tmp_path, "tea/2023-11-13.json", [])
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001")])
    assert len(messages_of(tmp_path)) == 1


def test_days_of_a_channel_come_in_order_and_together(tmp_path: Path) -> None:
    for folder in ("tea", "tea-2"):
        _write(tmp_path, f"{folder}/2023-11-15.json", [_said("1700050000.000001")])
        _write(
            tmp_path, f"{folder}/2023-11-14.json", [_said("1700000000.000002"), _said("1700000000.000001")]
        )
    ids = ["1700000000.000001", "1700000000.000002", "1700050000.000001"]
    assert [(message.conversation_id, message.message_id) for message in messages_of(tmp_path)] == [
        (folder, found) for folder in ("tea-2", "tea") for found in ids
    ]


def test_a_truncated_day_gives_what_it_has_and_a_flaw(tmp_path: Path) -> None:
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001"), _said("1700000000.000002")])
    day = tmp_path / "tea/2023-11-14.json"
    day.write_text(day.read_text()[:-20])
    _write(tmp_path, "tea/2023-11-15.json", [_said("1700050000.000001")])
    flaw, *messages = read_log(tmp_path)
    assert isinstance(flaw, Flaw)
    assert flaw.place.at == "after message 1"
    assert "not saved or downloaded completely" in flaw.reason
    assert [found.message_id for found in messages if isinstance(found, ChatMessage)] == [
        "1700000000.000001",
        "1700050000.000001",
    ]


def test_a_damaged_list_costs_names_but_no_messages(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text('[{"id": "U1", "name": "ann"}, {"id": "U2", "na')
    _write(
        tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001", "U1"), _said("1700000000.000002", "U2")]
    )
    flaw, *messages = read_log(tmp_path)
    assert isinstance(flaw, Flaw)
    assert flaw.place.file.endswith("users.json")
    assert [found.author for found in messages if isinstance(found, ChatMessage)] == ["ann", "U2"]


def test_a_day_that_is_no_list_is_a_flaw(tmp_path: Path) -> None:
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001")])
    _write(tmp_path, "tea/2023-11-15.json", {"messages": []})
    _, flaw = read_log(tmp_path)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == "this is no list of messages"


def test_a_time_that_is_a_number_keeps_its_digits(tmp_path: Path) -> None:
    _write(tmp_path, "tea/2023-11-14.json", [_said("1700000000.000001")])
    (tmp_path / "tea/2023-11-15.json").write_text('[{"ts": 1700050000.100000, "text": "a"}]')
    assert messages_of(tmp_path)[-1].message_id == "1700050000.100000"


def test_what_an_attachment_repeats_is_told_once(tmp_path: Path) -> None:
    repeated = {"text": "Build passed", "attachments": [{"text": "passed"}, {"text": "in 3 minutes"}]}
    _write(tmp_path, "tea/2023-11-14.json", [{**_said("1700000000.000001"), **repeated}])
    [message] = messages_of(tmp_path)
    assert message.text == "Build passed\nin 3 minutes"


def _said(ts: str, user: str = "U1") -> dict[str, Any]:
    return {"type": "message", "user": user, "text": "tea", "ts": ts}


def _write(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
