"""The guess at a message's importance follows its formula."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.chat_logs.messages import ChatMessage, Place
from ingest.importance import guessed_importance


@pytest.mark.parametrize(
    ("text", "role", "expected"),
    [
        ("ok", "other", 0.1 + 0.01 + 0.025),
        ("why?", "other", 0.1 + 0.01),
        ("¿por qué?  ", "user", 0.1 + 0.02 + 0.15),
        ("何時？", "user", 0.1 + 0.01 + 0.15),  # noqa: RUF001
        ("My sister was born on 3 May in Porto", "user", 0.1 + 0.09 + 0.2 + 0.15 + 0.15),
        ("word " * 400 + "7", "user", 1.0),
        ("", "other", 0.1),
    ],
)
def test_it_is_the_formula_of_the_documentation(text: str, role: Any, expected: float) -> None:
    message = ChatMessage(conversation_id="c", title=None, role=role, text=text, place=Place(file="log"))
    assert guessed_importance(message) == pytest.approx(expected, abs=0.001)
