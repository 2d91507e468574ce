"""Whatever was said is read once and in order, in every format that lists conversations."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree

Turns = list[tuple[bool, str]]  # whether the assistant speaks, and what is said

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
    str.strip
)
conversations = st.lists(
    st.lists(st.tuples(st.booleans(), words), min_size=1, max_size=5), min_size=1, max_size=4
)


def claude(talks: list[Turns]) -> str:
    def message(n: int, by_assistant: bool, said: str) -> Any:
        sender = "assistant" if by_assistant else "human"
        return {"uuid": f"m{n}", "sender": sender, "text": "", "content": [{"type": "text", "text": said}]}

    return json.dumps(
        [
            {"uuid": f"c{n}", "name": "", "chat_messages": [message(i, *t) for i, t in enumerate(turns)]}
            for n, turns in enumerate(talks)
        ]
    )


def claude_code(talks: list[Turns]) -> str:
    lines = [
        {
            "type": "assistant" if by_assistant else "user",
            "sessionId": f"s{n}",
            "parentUuid": None,
            "uuid": f"u{i}",
            "message": {"content": said},
        }
        for n, turns in enumerate(talks)
        for i, (by_assistant, said) in enumerate(turns)
    ]
    return "\n".join(json.dumps(line) for line in lines)


def openai(talks: list[Turns]) -> str:
    def messages(turns: Turns) -> Any:
        return [
            {"role": ("user", "assistant")[by_assistant], "content": said} for by_assistant, said in turns
        ]

    return "\n".join(json.dumps({"messages": messages(turns)}) for turns in talks)


def sharegpt(talks: list[Turns]) -> str:
    def messages(turns: Turns) -> Any:
        return [{"from": ("human", "gpt")[by_assistant], "value": said} for by_assistant, said in turns]

    return json.dumps([{"conversations": messages(turns)} for turns in talks])


def langchain(talks: list[Turns]) -> str:
    turns = [turn for talk in talks for turn in talk]
    return json.dumps([{"type": ("human", "ai")[by], "data": {"content": said}} for by, said in turns])


@pytest.mark.parametrize(
    "written", [claude, claude_code, openai, sharegpt, langchain], ids=lambda f: f.__name__
)
@given(talks=conversations)
def test_what_was_said_is_read_once_and_in_order(
    written: Callable[[list[Turns]], str], talks: list[Turns]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.json"
        path.write_text(written(talks), newline="")
        with open_tree(path) as tree:
            [found] = detect(tree).found
            messages = list(found.reader.read(tree, found.members, ReadOptions()))
    assert all(isinstance(message, ChatMessage) for message in messages)
    spoken = [(m.role == "assistant", m.text) for m in messages if isinstance(m, ChatMessage)]
    assert spoken == [turn for turns in talks for turn in turns]
    ids = {
        (m.conversation_id, m.message_id or n) for n, m in enumerate(messages) if isinstance(m, ChatMessage)
    }
    assert len(ids) == len(messages)
