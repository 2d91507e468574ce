"""A guess at how important a message is, from its form alone: off unless it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.chat_logs.messages import ChatMessage

_QUESTION_MARKS = ("?", "？", "؟")  # noqa: RUF001 (as other scripts write it)


def guessed_importance(message: ChatMessage) -> float:
    """Return 0.1..1.0, with n words in the text:

    0.1 + 0.4 min(1, n / 40) + 0.2 min(1, n / 8) if it is no question + 0.15 if it holds a digit
    + 0.15 if the user said it.

    Long statements with dates and numbers by the person come out high, short questions and `ok` low. The
    weights are a choice, not measured.
    """
    n_words = len(message.text.split())
    is_question = message.text.rstrip().endswith(_QUESTION_MARKS)
    has_digit = any(character.isdigit() for character in message.text)
    return round(
        0.1
        + 0.4 * min(1, n_words / 40)
        + 0.2 * min(1, n_words / 8) * (not is_question)
        + 0.15 * has_digit
        + 0.15 * (message.role == "user"),
        3,
    )
