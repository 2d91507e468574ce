"""The texts of the benchmarks, all from the project's own sample conversation, and queries about it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

_HELD_OUT_EVERY = 5  # the sentences of every fifth message are asked with, and are in no corpus
_WORDS_AT_LEAST = 5
_ASK = (
    "{}",
    "Do you remember this: {}",
    "What was said about it? {}",
    "I am looking for something like this. {}",
    "{} Was it like that?",
    "When did that happen: {}",
    "{} Who said so?",
    "Tell me more: {}",
    "{} And why?",
    "Somebody mentioned it once. {}",
    "{} What came of it?",
    "Is this still true? {}",
    "{} Where was that?",
    "Remind me: {}",
    "{} What else?",
    "A question about this: {}",
    "{} How did it end?",
)


def sample_texts(n: int) -> list[str]:
    """Return `n` different texts: the messages of the sample, again and again with a number behind."""
    contents = _messages()
    return [f"{contents[i % len(contents)]} ({i // len(contents)})" for i in range(n)]


@cache
def corpus_sentences() -> tuple[str, ...]:
    """Return the sentences that a corpus is made of."""
    return _sentences(held_out=False)


def queries(n: int) -> list[str]:
    """Return `n` different queries about sentences that are in no corpus.

    Raises:
        ValueError: there are not so many.

    """
    found = [ask.format(sentence) for ask in _ASK for sentence in _sentences(held_out=True)]
    if n > len(found):
        raise ValueError(f"{n} queries: there are only {len(found)} different ones")
    return found[:n]


@cache
def _messages() -> tuple[str, ...]:
    lines = (files("ingest") / "samples" / "lighthouse.jsonl").read_text().splitlines()
    return tuple(json.loads(line)["content"] for line in lines)


@cache
def _sentences(*, held_out: bool) -> tuple[str, ...]:
    messages = [m for i, m in enumerate(_messages()) if (i % _HELD_OUT_EVERY == 0) == held_out]
    found = (s for message in messages for s in re.split(r"(?<=[.!?])\s+", message))
    return tuple(dict.fromkeys(s for s in found if len(s.split()) >= _WORDS_AT_LEAST))
