"""Slack exports of any shape: what was said is read once, in its order, whatever stands around it."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.slack import SLACK
from ingest.chat_logs.trees import Member, Tree

FIRST_DAY = 1_700_000_000
DAY_S = 86_400

said = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00") | st.sampled_from("<>&|@#!:;")
)
keys = st.sampled_from(
    ["type", "subtype", "user", "bot_id", "username", "text", "thread_ts", "edited", "files", "file",
     "hidden", "attachments", "blocks", "elements", "fields", "title", "fallback", "user_profile",
     "profile", "comment", "user_id", "id", "name", "members", "timestamp"]
)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers(0, 10**12)
    | said
    | st.sampled_from(["rich_text", "rich_text_list"])
)
any_value = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=12
)


@dataclass(frozen=True)
class Said:
    """A message to come: where, when, what, and in which of the places where Slack puts a text."""

    folder: str
    day: int
    microsecond: int
    text: str
    way: str

    @property
    def ts(self) -> str:
        return f"{FIRST_DAY + DAY_S * self.day}.{self.microsecond:06}"

    def as_slack(self) -> dict[str, Any]:
        escaped = self.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        plain = {"type": "text", "text": self.text}
        section = {"type": "rich_text_section", "elements": [plain]}
        ways: dict[str, dict[str, Any]] = {
            "text": {"text": escaped},
            "blocks": {"text": "", "blocks": [{"type": "rich_text", "elements": [section]}]},
            "both": {"text": escaped, "blocks": [{"type": "rich_text", "elements": [section]}]},
            "attachment": {"text": "", "attachments": [{"text": escaped, "fallback": escaped}]},
            "broadcast": {"text": escaped, "subtype": "thread_broadcast", "thread_ts": "1.0"},
            "bot": {"text": escaped, "subtype": "bot_message", "bot_id": "B1", "username": "deploys"},
        }
        return {"type": "message", "ts": self.ts, **ways[self.way]}


messages = st.lists(
    st.builds(
        Said,
        folder=st.sampled_from(["tea", "tea-2", "D1"]),
        day=st.integers(0, 3),
        microsecond=st.integers(0, 999_999),
        text=said,
        way=st.sampled_from(["text", "blocks", "both", "attachment", "broadcast", "bot"]),
    ),
    unique_by=lambda message: (message.folder, message.ts),
    max_size=20,
)


@given(messages=messages, around=st.sampled_from(["", "export/", "a/b/"]))
def test_what_was_said_is_read_once_and_in_order(messages: list[Said], around: str) -> None:
    days: dict[str, list[Any]] = {}
    for message in messages:
        day = f"{around}{message.folder}/2023-11-{14 + message.day}.json"
        days.setdefault(day, []).append(message.as_slack())
    days[f"{around}channels.json"] = [{"id": "C1", "name": "tea"}]
    ids = {"tea": "C1", "tea-2": "tea-2", "D1": "D1"}
    found = _read(_tree(days))
    assert [
        (m.conversation_id, m.message_id, _said(m.text)) for m in found if isinstance(m, ChatMessage)
    ] == [
        (ids[folder], m.ts, _said(m.text))
        for folder in ("D1", "tea-2", "tea")  # as the names of the files sort
        for m in sorted(messages, key=lambda m: m.ts)
        if m.folder == folder
    ]
    assert len(found) == len(messages)


@settings(max_examples=300)
@given(values=st.lists(any_value, max_size=4), lists=st.lists(any_value, max_size=4))
def test_any_value_with_a_time_is_a_message_and_any_other_a_flaw(values: list[Any], lists: list[Any]) -> None:
    timed = [
        {"ts": f"1700000000.{n:06}", **value} for n, value in enumerate(values) if isinstance(value, dict)
    ]
    known = {"ts": "1600000000.000000"}
    files = dict.fromkeys(("users.json", "channels.json", "dms.json"), lists)
    found = _read(_tree({"tea/2023-11-14.json": [known, *values, *timed], **files}))
    assert len([flaw for flaw in found if isinstance(flaw, Flaw)]) == len(values)
    assert len([message for message in found if isinstance(message, ChatMessage)]) == len(timed) + 1


def _said(text: str) -> str:
    return text if text.strip() else ""


def _tree(files: dict[str, list[Any]]) -> Tree:
    members = []
    for name, value in sorted(files.items()):
        body = json.dumps(value).encode()
        members.append(
            Member(name=name, shown=name, n_bytes=len(body), opener=functools.partial(BytesIO, body))
        )
    return Tree(shown="export", members=tuple(members))


def _read(tree: Tree) -> list[ChatMessage | Flaw]:
    return list(SLACK.read(tree, SLACK.gather(tree), ReadOptions()))
