"""Discord's messages of any shape: one with an id is a message, any other a flaw."""

from __future__ import annotations

import functools
import json
from io import BytesIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chat_logs.discord import DISCORD
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import Member, Tree

keys = st.sampled_from(
    ["type", "content", "author", "name", "nickname", "timestamp", "timestampEdited", "attachments",
     "fileName", "embeds", "title", "description", "fields", "value", "mentions", "reference", "messageId",
     "channelId", "forwardedMessage", "interaction", "Contents", "Timestamp", "Attachments"]
)  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers(0, 10**12) | st.sampled_from(["", "<@1>", "<:tea:1>", "Reply"])
)
any_value = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=12
)


@settings(max_examples=200)
@given(values=st.lists(any_value, max_size=5), head=any_value)
def test_whatever_has_an_id_is_a_message_of_an_export(values: list[Any], head: Any) -> None:
    known = [{"id": str(n), **value} for n, value in enumerate(values) if isinstance(value, dict)]
    export = {"guild": head, "channel": {"id": "1", "name": head}, "messages": [*values, *known]}
    _check(_read({"a.json": export}), n_messages=len(known), n_flaws=len(values))


@settings(max_examples=200)
@given(values=st.lists(any_value, max_size=5), head=any_value)
def test_whatever_has_an_id_is_a_message_of_a_data_package(values: list[Any], head: Any) -> None:
    first = {"ID": 1, "Timestamp": "2023-11-14 22:13:20", "Contents": "tea"}
    known = [{"ID": n, **value} for n, value in enumerate(values) if isinstance(value, dict)]
    package = {"c1/channel.json": head, "c1/messages.json": [first, *values, *known], "index.json": head}
    _check(_read(package), n_messages=1 + len(known), n_flaws=len(values))


def _check(found: list[ChatMessage | Flaw], *, n_messages: int, n_flaws: int) -> None:
    assert len([message for message in found if isinstance(message, ChatMessage)]) == n_messages
    assert len([flaw for flaw in found if isinstance(flaw, Flaw)]) == n_flaws


def _read(files: dict[str, Any]) -> list[ChatMessage | Flaw]:
    members = tuple(
        Member(
            name=name, shown=name, n_bytes=1, opener=functools.partial(BytesIO, json.dumps(value).encode())
        )
        for name, value in files.items()
    )
    return list(DISCORD.read(Tree(shown="export", members=members), members, ReadOptions()))
