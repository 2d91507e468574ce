"""The word index, changed in any way, is what it would be if it were made of what is there now."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.handles import NOWHERE
from memory.postings import Text
from memory.word_index import WordIndex
from memory.words import Analyzer

ANALYZER = Analyzer()
WORDS = ("tea", "green", "jasmine", "walk", "walking", "dog", "the", "café", "茶", "绿茶")
NAMESPACES = ("a", "b")
AUTHORS = (None, "Ann", "Bob Lee")
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


@st.composite
def texts(draw: st.DrawFn) -> list[Text]:
    ids = draw(st.lists(st.integers(1, 25), unique=True, max_size=8))
    return [
        Text(
            memory_id=i,
            namespace=draw(st.sampled_from(NAMESPACES)),
            content=" ".join(draw(st.lists(st.sampled_from(WORDS), max_size=9)))
            + draw(st.sampled_from(("", "?"))),
            author=draw(st.sampled_from(AUTHORS)),
            source=draw(st.sampled_from(("one", "two"))),
            position=draw(st.none() | st.integers(0, 3)),
            created_at=EPOCH + timedelta(microseconds=draw(st.integers(-2, 2))),
        )
        for i in ids
    ]


changes = st.lists(
    st.tuples(st.lists(st.integers(1, 30), max_size=6, unique=True), texts(), st.booleans()), max_size=8
)


@dataclass
class Model:
    """The same by the plainest means."""

    texts: dict[int, Text] = field(default_factory=dict)

    def change(self, removed: list[int], new: list[Text]) -> None:
        for i in removed:
            self.texts.pop(i, None)
        self.texts |= {text.memory_id: text for text in new}

    def around(self, memory_id: int, n: int) -> list[int]:
        own = self.texts[memory_id]
        if own.position is None:
            return [NOWHERE] * n + [memory_id] + [NOWHERE] * n
        told = sorted(
            (t.created_at, t.position, t.memory_id)
            for t in self.texts.values()
            if t.position is not None and (t.namespace, t.source) == (own.namespace, own.source)
        )
        ids = [NOWHERE] * n + [place[2] for place in told] + [NOWHERE] * n
        at = ids.index(memory_id)
        return ids[at - n : at + n + 1]

    def bm25(self, query: str, namespace: str) -> dict[int, float]:
        there = {i: t for i, t in self.texts.items() if t.namespace == namespace}
        counts = {i: Counter(ANALYZER.terms(t.content)) for i, t in there.items()}
        mean = sum(c.total() for c in counts.values()) / max(1, len(there))
        scores = dict.fromkeys(there, 0.0)
        for term in ANALYZER.query_terms(query):
            d = sum(term in c for c in counts.values())
            idf = math.log(1 + (len(there) - d + 0.5) / (d + 0.5))
            for i, c in counts.items():
                held = 1.2 * (1 - 0.75 + 0.75 * c.total() / max(mean, 1))
                scores[i] += idf * c[term] * 2.2 / (c[term] + held)
        return scores


@settings(max_examples=150)
@given(changes, st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.sampled_from(NAMESPACES))
def test_it_is_what_it_would_be_if_it_were_made_anew(steps, words, namespace) -> None:
    index, model = WordIndex(), Model()
    for removed, new, is_reloaded in steps:
        index.take(index.change(removed=removed, texts=new))
        model.change(removed, new)
        if is_reloaded:
            index = reloaded(index)
    ids = np.array(sorted(model.texts), dtype=np.int64)
    assert index.ids().tolist() == ids.tolist()
    assert len(index) == len(ids)
    handles = index.handles(ids)
    assert index.ids_of(handles).tolist() == ids.tolist()
    assert index.handles(np.array([0, 99])).tolist() == [NOWHERE, NOWHERE]
    lengths = [len(ANALYZER.terms(model.texts[i].content)) for i in ids.tolist()]
    assert index.lengths(handles).tolist() == lengths
    assert index.are_questions(handles).tolist() == [model.texts[i].content.endswith("?") for i in ids]
    assert index.are_messages(handles).tolist() == [model.texts[i].position is not None for i in ids]
    around = index.ids_of(index.around(handles, n=2))
    assert around.tolist() == [model.around(i, 2) for i in ids.tolist()]
    assert index.agree(list(model.texts.values())).all()
    check_matches(index, model, " ".join(words), namespace)
    check_names(index, model, namespace)


def check_matches(index: WordIndex, model: Model, query: str, namespace: str) -> None:
    expected = model.bm25(query, namespace)
    found = index.matches(ANALYZER.query_terms(query), namespace=namespace)
    ids = np.array(sorted(expected), dtype=np.int64)
    handles = index.handles(ids)
    counts, lengths = found.counts(handles), index.lengths(handles).astype(float)
    scores = found.bm25(counts, lengths)
    np.testing.assert_allclose(scores, [expected[i] for i in ids.tolist()])
    matching, scores = found.scores()
    of_matching = dict(zip(index.ids_of(matching).tolist(), scores.tolist(), strict=True))
    assert len(of_matching) == len(matching)
    assert of_matching == pytest.approx({i: s for i, s in expected.items() if s})


@given(texts().filter(bool), st.data())
def test_a_memory_of_which_anything_is_otherwise_does_not_agree(new, data) -> None:
    index = WordIndex()
    index.take(index.change(removed=(), texts=new))
    other = data.draw(st.sampled_from(new))
    changed = data.draw(
        st.sampled_from(
            [
                other._replace(content=other.content + " dog"),
                other._replace(content=other.content + "!?" * (not other.content.endswith("?"))),
                other._replace(namespace="c"),
                other._replace(author="Zoe"),
                other._replace(position=7),
                other._replace(position=None),
                other if other.position is None else other._replace(created_at=EPOCH + timedelta(days=1)),
            ]
        )
    )
    is_same = changed == other
    agreed = index.agree([changed if t is other else t for t in new])
    assert agreed.tolist() == [is_same if t is other else True for t in new]


def check_names(index: WordIndex, model: Model, namespace: str) -> None:
    terms = ANALYZER.terms("Lee ann tea")
    found = index.names(terms, namespace=namespace)
    for term, handles in zip(terms, found, strict=True):
        wanted = [
            i
            for i, t in sorted(model.texts.items())
            if t.namespace == namespace and t.author and term in ANALYZER.terms(t.author)
        ]
        assert sorted(index.ids_of(handles).tolist()) == wanted


def reloaded(index: WordIndex) -> WordIndex:
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "words.npz")
        loaded = WordIndex.load(Path(folder) / "words.npz", language="english")
    assert loaded.held_ids().tolist() == index.ids().tolist()  # no trace of what is gone
    return loaded
