"""How texts of any language are taken apart into terms."""

from __future__ import annotations

import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from memory.languages import LANGUAGES
from memory.words import Analyzer


def same(one: str, other: str, *, language: str = "english") -> bool:
    analyzer = Analyzer(language)
    return analyzer.terms(one) == analyzer.terms(other)


def test_the_languages_are_snowballs() -> None:
    assert {*LANGUAGES} - {"none"} == set(Stemmer.algorithms()) - {"porter", "dutch_porter"}


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "Running, runs!", "run ran"[:3] + " run"),
        ("english", "CAFÉ naïve", "cafe naive"),
        ("english", "ﬁne \N{FULLWIDTH LATIN CAPITAL LETTER W}ide", "fine wide"),
        ("german", "Häuser", "Haus"),
        ("german", "STRASSE", "Straße"),
        ("english", "книгами", "книга"),
        ("english", "الكُتُب", "الكتب"),
        ("none", "été", "ETE"),
    ],
)
def test_words_that_people_take_for_the_same_are_one_term(language: str, one: str, other: str) -> None:
    assert same(one, other, language=language)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("none", "running", "run"),
        ("english", "か", "が"),
        ("english", "2023", "2024"),
        ("english", "東京", "京東"),
    ],
)
def test_others_are_not(language: str, one: str, other: str) -> None:
    assert not same(one, other, language=language)


def test_text_without_blanks_is_taken_in_pairs_of_characters() -> None:
    analyzer = Analyzer()
    assert len(analyzer.terms("我在北京吃烤鸭")) == 7 + 6
    assert len(analyzer.query_terms("我在北京吃烤鸭")) == 6
    for part, text in (
        ("烤鸭", "我在北京吃烤鸭"),
        ("鸭", "我在北京吃烤鸭"),
        ("ラーメン", "昨日ラーメンを食べた"),
        ("กาแฟ", "ฉันชอบกาแฟมาก"),
        ("手机", "iPhone手机"),
    ):
        assert set(analyzer.query_terms(part)) <= set(analyzer.terms(text)), part
    assert len(analyzer.query_terms("烤鸭")) == 1
    assert len(analyzer.query_terms("iPhone手机")) == 2


def test_function_words_are_left_out_of_english_queries_alone() -> None:
    english, german = Analyzer("english"), Analyzer("german")
    assert english.query_terms("what is the name of the dog") == english.terms("name dog")
    assert len(english.terms("what is the name of the dog")) == 7
    assert len(german.query_terms("was ist die Farbe")) == 4
    assert english.query_terms("who are you?") == english.terms("who are you")  # nothing else is left
    assert english.query_terms("dog, dog; DOG") == english.terms("dog")
    assert english.query_terms("?!") == []


def test_what_is_forgotten_is_learned_again() -> None:
    analyzer = Analyzer()
    terms = analyzer.terms("a secret word")
    analyzer.forget()
    assert not analyzer._known
    assert analyzer.terms("a secret word") == terms


@given(st.text(), st.sampled_from(LANGUAGES))
def test_any_text_has_terms_of_64_bits_in_any_language(text: str, language: str) -> None:
    analyzer = Analyzer(language)
    terms = analyzer.terms(text)
    assert all(0 <= term < 2**64 for term in terms)
    assert set(analyzer.query_terms(text)) <= set(terms)
    assert analyzer.terms(f"{text} {text}") == terms * 2
