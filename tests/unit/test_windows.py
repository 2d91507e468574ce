"""A long text is cut into windows that together hold all of it, and no piece more than the model reads."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.engines.windows import windows

WORDS = re.compile(r"\S+")


def cut(text: str, room: int) -> list[str]:
    """Cut with a model of ours, to which each word is a piece, and each letter of a very long one."""
    return windows(text, pieces(text), room=room)


def pieces(text: str) -> list[tuple[int, int]]:
    return [
        (place, place + 1) if match.end() - match.start() > 20 else match.span()
        for match in WORDS.finditer(text)
        for place in (range(*match.span()) if match.end() - match.start() > 20 else [0])
    ]


def test_a_text_that_fits_is_one_window_as_it_is() -> None:
    assert cut("  one two three. ", 3) == ["  one two three. "]
    assert cut("", 3) == [""]
    assert cut(" \n ", 1) == [" \n "]


def test_windows_end_where_sentences_do_and_share_the_last_ones() -> None:
    text = "a a a a a. b b b b. c c. d d. e e e e e e. f f. g g g g g. h h h h h h."
    assert cut(text, 16) == [
        "a a a a a. b b b b. c c. d d.",
        "c c. d d. e e e e e e. f f.",
        "f f. g g g g g. h h h h h h.",
    ]


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("one two three four! five six seven eight", "five six seven eight"),
        ("one two three four\nfive six seven eight", "five six seven eight"),
        ("one two three four… “five six seven eight", "“five six seven eight"),
        ("one two three (four?) five six seven eight", "five six seven eight"),
        ("один два три четыре? пять шесть семь восемь", "пять шесть семь восемь"),
        ("एक दो तीन चार। पाँच छह सात आठ", "पाँच छह सात आठ"),
    ],
)
def test_where_a_sentence_ends(text: str, second: str) -> None:
    assert cut(text, 4) == [text[: text.index(second)].rstrip(), second]


def test_a_sentence_ends_without_a_space_in_scripts_that_use_none() -> None:
    sentences = ["今天天气很好。", "我们去公园散步了。", "你呢。"]
    text = "".join(sentences)
    assert windows(text, [(i, i + 1) for i in range(len(text))], room=10) == sentences


def test_no_sentence_ends_within_a_number_or_an_abbreviation() -> None:
    assert cut("one two 4.5 three e.g.this six seven eight", 4) == [
        "one two 4.5 three",
        "three e.g.this six seven",
        "seven eight",
    ]


def test_a_sentence_longer_than_a_window_is_cut_between_words_and_a_word_between_pieces() -> None:
    sentence = " ".join(f"word{n}" for n in range(100))
    assert all(window in sentence and window.startswith("word") for window in cut(sentence, 10))
    word = "x" * 1000
    found = cut(word, 10)
    assert {len(window) for window in found[:-1]} == {10}
    assert len(found) == 1 + -(-990 // 8)  # two letters of ten are shared


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """Draw a text, of which no two pieces are alike, and where these are."""
    text, spans = "", []
    for n, kind in enumerate(
        draw(st.lists(st.sampled_from(["w", "end. ", "end?! ", "long", "\n\n"]), max_size=99))
    ):
        parts = [chr(0x4E00 + 50 * n + k) for k in range(45)] if kind == "long" else [f"{kind.strip()}{n}"]
        for part in parts if kind.strip() else []:
            spans.append((len(text), len(text) + len(part)))
            text += part
        text += " " if kind in {"w", "long"} else kind[-2:]
    return text, spans


@given(texts(), st.integers(1, 30))
def test_windows_hold_the_whole_text_and_fit(drawn: tuple[str, list[tuple[int, int]]], room: int) -> None:
    text, spans = drawn
    reached = begin_before = 0  # the pieces up to here are in a window
    for window in windows(text, spans, room=room):
        place = text.index(window)
        inside = [n for n, (begin, end) in enumerate(spans) if place <= begin and end <= place + len(window)]
        assert len(inside) <= room
        if inside:
            assert begin_before <= inside[0] <= reached, "nothing lies between two windows"
            assert reached - inside[0] <= room / 2, "they share a half at most"
            begin_before, reached = inside[0] + 1, inside[-1] + 1
    assert reached == len(spans)


@pytest.mark.parametrize("run", ["Some words of a sentence. ", " ", ".", "'", "\n", " .", ".'", "。", "x"])
def test_the_work_is_proportional_to_the_text(run: str) -> None:
    text = "word " * 600 + run * (600_000 // len(run)) + " word" * 600
    found = cut(text, 254)
    assert sum(len(pieces(window)) for window in found) < 1.6 * len(pieces(text))
