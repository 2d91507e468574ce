"""Ranking beyond relevance: boosts, diversity, duplicates, cursors, the reranker."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.boosts import Boosts, boosted
from memory.diversity import diverse
from memory.duplicates import first_of_each
from memory.errors import InvalidMemory, NoReranker
from memory.models import Memory, MemoryId, MemoryType, SearchHit
from memory.paging import Cursor, read_cursor
from memory.reranker import Reranker
from memory.search_request import SearchRequest, search_request

NOW = datetime(2026, 1, 1, tzinfo=UTC)

shares = st.floats(0, 1)
scores = st.floats(-1, 1)
days = st.floats(0, 4000)


def memory(content: str = "a memory", memory_id: int = 1, **fields: Any) -> Memory:
    given: dict[str, Any] = {
        "uid": "u",
        "namespace": "default",
        "memory_type": MemoryType.EPISODIC,
        "source": "user",
        "metadata": {},
        "importance": None,
        "created_at": NOW,
        "last_access_at": None,
        "version": 1,
    }
    return Memory(id=MemoryId(memory_id), content=content, **{**given, **fields})


def hit(content: str, memory_id: int = 1, **fields: Any) -> SearchHit:
    return SearchHit(memory=memory(content, memory_id, **fields), score=0.5, rank=1)


@given(
    score=scores,
    recency=shares,
    importance=shares,
    access=shares,
    half_life=st.floats(0.01, 400),
    data=st.data(),
)
def test_boosts_only_lower_and_never_turn_an_order_round(
    score: float, recency: float, importance: float, access: float, half_life: float, data: st.DataObject
) -> None:
    boosts = Boosts(recency=recency, importance=importance, access=access, half_life_days=half_life, now=NOW)

    def of(age: float, known: float | None, found: float | None, score: float = score) -> float:
        one = memory(
            created_at=NOW - timedelta(days=age),
            importance=known,
            last_access_at=None if found is None else NOW - timedelta(days=found),
        )
        return boosted(score, boosts.terms(one))

    age, older = sorted([data.draw(days), data.draw(days)])
    low, high = sorted([data.draw(shares), data.draw(shares)])
    found, before = sorted([data.draw(days), data.draw(days)])
    value = of(age, high, found)
    assert value <= score
    assert (value >= 0) == (score >= 0)
    assert of(older, high, found) <= value
    assert of(age, low, found) <= value
    assert of(age, high, before) <= value
    assert of(age, high, None) <= value
    assert of(age, None, found) == of(age, 0.5, found)
    assert of(age, high, found, score=data.draw(st.floats(-1, score))) <= value


def test_boosts_are_what_their_formula_says() -> None:
    old = memory(created_at=NOW - timedelta(days=30), importance=0.25)
    terms = Boosts(recency=0.4, importance=1, access=0.1, now=NOW).terms(old)
    assert {name: term.value for name, term in terms.items()} == {
        "recency": pytest.approx(0.5),
        "importance": 0.25,
        "access": 0,
    }
    assert boosted(0.8, terms) == pytest.approx(0.8 * (1 - 0.4 * 0.5) * 0.25 * 0.9)
    assert Boosts(now=NOW).terms(old) == {}
    assert boosted(0.8, {}) == 0.8
    future = memory(created_at=NOW + timedelta(days=9))
    assert Boosts(recency=1, now=NOW).terms(future)["recency"].value == 1


@given(n=st.integers(0, 12), k=st.integers(1, 12), diversity=shares, seed=st.integers(0, 99))
def test_each_next_one_is_the_most_relevant_of_those_that_are_unlike_the_ones_before(
    n: int, k: int, diversity: float, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    relevance = np.sort(chance.random(n))[::-1]
    vectors = chance.standard_normal((n, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = diverse(relevance, vectors, k=k, diversity=diversity)
    assert len(chosen) == len(set(chosen)) == min(n, k)
    for place, one in enumerate(chosen):

        def gain(i: int, before: list[int] = chosen[:place]) -> float:
            likeness = max((float(vectors[i] @ vectors[j]) for j in before), default=0.0)
            return float((1 - diversity) * relevance[i] - diversity * likeness)

        left = set(range(n)) - set(chosen[:place])
        assert gain(one) == pytest.approx(max(gain(i) for i in left), abs=1e-6)


def test_without_diversity_the_order_stays() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    assert diverse(np.array([0.9, 0.8, 0.7, 0.1]), vectors, k=4, diversity=0) == [0, 1, 2, 3]
    assert diverse(np.array([0.9, 0.8, 0.7, 0.1]), vectors, k=3, diversity=0.5) == [0, 2, 3]


def test_of_those_that_say_the_same_the_first_one_stays() -> None:
    hits = [
        hit("I like pears", 1),
        hit("i  LIKE pears\n", 2),
        hit("I like pears", 3, metadata={"author": "Ines"}),
        hit("I like pears", 4, memory_type=MemoryType.PREFERENCE),
        hit("I like plums", 5),
        hit("I like pears", 6, metadata={"author": "Ines"}, source="another chat"),
    ]
    assert [one.memory.id for one in first_of_each(hits)] == [1, 3, 4, 5]


def test_a_cursor_says_what_comes_behind_it_and_is_read_back() -> None:
    cursor = Cursor(score=0.1 + 0.2, memory_id=MemoryId(7), rank=5, digest="d", now=NOW)
    assert read_cursor(str(cursor), digest="d") == cursor
    assert cursor.is_before(0.3, MemoryId(1))
    assert cursor.is_before(0.1 + 0.2, MemoryId(8))
    assert not cursor.is_before(0.1 + 0.2, MemoryId(7))
    assert not cursor.is_before(0.4, MemoryId(8))
    with pytest.raises(InvalidMemory, match="a cursor of the same search"):
        read_cursor(str(cursor), digest="e")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "é",
        7,
        b"x",
        "[]",
        urlsafe_b64encode(b"{}").decode(),
        urlsafe_b64encode(b'["a",1,1,"d","x"]').decode(),
    ],
)
def test_what_is_no_cursor_is_refused(value: object) -> None:
    with pytest.raises(InvalidMemory, match=r"after = .*: must be a hit's cursor"):
        read_cursor(value, digest="d")


def asked(**options: Any) -> SearchRequest:
    return search_request("pears", max_content_bytes=100, options=options)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "soon"}, "since = 'soon': must be an ISO 8601"),
        ({"since": "2024-01-02", "until": "2024-01-02"}, r"until = .*: must be after since"),
        ({"read_times": True, "since": "2024-01-02"}, "read_times = True"),
        ({"read_times": 1}, "read_times = 1: must be true or false"),
        ({"now": "x"}, "now = 'x'"),
        ({"recency": 2}, r"recency = 2: must be a number in 0\.\.1"),
        ({"importance": True}, "importance = True"),
        ({"half_life_days": 0}, "half_life_days = 0"),
        ({"diversity": -1}, "diversity = -1"),
        ({"distinct": None}, "distinct = None"),
        ({"rerank": True, "limit": 51}, r"limit = 51: must be 1\.\.50 with rerank"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"source": []}, "source = "),
        ({"source": ["a", ""]}, "source = ''"),
        ({"where": []}, "where = "),
        ({"colour": 1}, "option = 'colour': must be one of access, after"),
        ({"after": "x", "rerank": True}, "after = 'x': must be absent"),
        ({"after": "x"}, "after = 'x': must be a hit's cursor"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidMemory, match=message):
        asked(**options)


def test_a_request_arrives_as_it_was_sent() -> None:
    request = asked(
        memory_types=["task"],
        mode="words",
        where={"metadata.a": {"in": ["x", 1]}, "not": {"created_at": {"lt": NOW}}},
        source=["a", "b"],
        since=NOW,
        recency=0.5,
        now=NOW,
        max_tokens=9,
    )
    cursor = Cursor(score=0.5, memory_id=MemoryId(3), rank=2, digest=request.digest, now=NOW)
    for sent in (request, request.following(str(cursor)), asked()):
        assert SearchRequest.from_json(json.loads(json.dumps(sent.as_json()))) == sent


def test_time_words_are_only_read_when_that_is_asked_for() -> None:
    def where(query: str, **options: Any) -> Any:
        request = search_request(query, max_content_bytes=100, options={"now": NOW, **options})
        return request.where and request.where.as_json()

    assert where("in May 2023") is None
    assert where("pears", read_times=True) is None
    assert where("since May 2023", read_times=True) == {"created_at": {"gte": "2023-05-01T00:00:00+00:00"}}


def test_a_reranker_reads_query_and_text_together(tmp_path: Path) -> None:
    reranker = Reranker(str(tiny_cross_encoder(tmp_path)))
    texts = ["pears and plums", "the sea", "pears"]
    found = reranker.scores("pears", texts)
    assert found.shape == (3,)
    assert ((found > 0) & (found < 1)).all()
    assert reranker.scores("pears", texts[::-1]) == pytest.approx(found[::-1], abs=1e-5)
    assert reranker.scores("plums", texts) != pytest.approx(found)
    assert len(reranker.scores("pears", [])) == 0


def test_without_a_reranker_it_is_said_how_to_set_one(tmp_path: Path) -> None:
    with pytest.raises(NoReranker, match="set MEMORY_RERANKER"):
        Reranker(None).scores("pears", ["pears"])
    with pytest.raises(NoReranker, match=r"MEMORY_RERANKER: .*nowhere cannot be loaded"):
        Reranker(str(tmp_path / "nowhere")).scores("pears", ["pears"])


def tiny_cross_encoder(directory: Path) -> Path:
    """A cross-encoder of one small layer, with weights of chance."""
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast  # noqa: PLC0415

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pears", "and", "plums", "the", "sea"]
    (directory / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(directory / "model")
    BertTokenizerFast(str(directory / "vocab.txt")).save_pretrained(directory / "model")
    return directory / "model"
