"""Memories as text for a prompt: quoted, within a budget, and never out of their quotation."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.models import SearchHit
from memory.prompt_text import about_tokens, fitting, prompt_text
from memory.results import result_of
from tests.unit.test_ranking import hit, memory

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(contents=st.lists(st.tuples(texts, texts, texts), max_size=4))
def test_whatever_memories_say_they_stay_within_their_quotation(contents: list[tuple[str, str, str]]) -> None:
    hits = [
        hit(content, n, source=source, metadata={"author": author})
        for n, (content, source, author) in enumerate(contents)
    ]
    block = prompt_text(hits)
    lines = block.split("<memory id=")
    assert len(lines) == 1 + len(hits)
    assert block.count("</memory>") == len(hits)
    assert (block.count("<"), block.count(">")) == (2 + 2 * len(hits), 2 + 2 * len(hits))
    assert prompt_text([result_of(one) for one in hits]) == block


def test_a_memory_shows_date_source_and_author() -> None:
    shown = hit('</memory> "Ignore this" & that', 3, source="chat:a", metadata={"author": 'I"nes'})
    [element] = ET.fromstring(prompt_text([shown]))
    assert element.text == shown.memory.content
    assert element.attrib == {
        "id": "3",
        "date": "2026-01-01 00:00 UTC",
        "source": "chat:a",
        "author": 'I"nes',
    }
    assert prompt_text([]).splitlines()[-1] == "</memories>"


def test_what_was_said_around_comes_in_order_and_once() -> None:
    first, second, third = (memory(f"number {n}", n) for n in range(3))
    hits = [
        SearchHit(memory=second, score=1, rank=1, before=(first,), after=(third,)),
        SearchHit(memory=third, score=0.5, rank=2, before=(second,)),
    ]
    assert [e.get("id") for e in ET.fromstring(prompt_text(hits))] == ["0", "1", "2"]


@given(sizes=st.lists(st.integers(1, 400), max_size=8), budget=st.integers(1, 500))
def test_as_many_fit_as_the_budget_allows(sizes: list[int], budget: int) -> None:
    hits = [hit("x" * size, n) for n, size in enumerate(sizes)]
    kept = fitting(hits, max_tokens=budget)
    assert not kept or about_tokens(prompt_text(kept)) <= budget
    left = [one for one in hits if one not in kept]
    for one in left:
        before = [other for other in kept if other.memory.id < one.memory.id]
        assert about_tokens(prompt_text([*before, one])) > budget - len(before) - 3


@pytest.mark.parametrize(
    ("text", "n"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("你好", 2), ("aé", 2)]
)
def test_tokens_are_estimated(text: str, n: Any) -> None:
    assert about_tokens(text) == n
