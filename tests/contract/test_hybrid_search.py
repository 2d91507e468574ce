"""Searching by meaning, by words and by what was said around: the modes, their terms, and what is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory import relevance
from memory.errors import InvalidMemory
from memory.memory_manager import MemoryManager
from memory.models import Memory
from memory.relevance import TERMS, WEIGHTS
from memory.results import SearchResult
from tests.fakes import WordEmbedder

TALK = [
    ("Ines", "Good morning!"),
    ("Rui", "Did you sleep well? I was up all night."),
    ("Ines", "Yes. I adopted a puppy yesterday, from the shelter in Braga."),
    ("Rui", "How lovely! What is it called?"),
    ("Ines", "Bolota, which means acorn."),
    ("Rui", "I will bring a blanket for it on Friday."),
    ("Ines", "Thank you!"),
    ("Rui", "My sister moved to Lisbon in May."),
]


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def tell(
    manager: MemoryManager, talk: list[tuple[str, str]] = TALK, *, source: str = "chat:a"
) -> list[Memory]:
    """Store a conversation, a message a minute."""
    return manager.add_memories(
        {
            "content": content,
            "source": source,
            "metadata": {"author": author, "position": position},
            "created_at": f"2025-03-01T10:{position:02}:00+00:00",
        }
        for position, (author, content) in enumerate(talk)
    )


def scored(results: list[SearchResult]) -> list[tuple[int, float]]:
    return [(result["memory"].id, result["score"]) for result in results]


def contents(results: list[SearchResult]) -> list[str]:
    return [result["memory"].content for result in results]


def test_what_shares_words_is_found_by_words_alone_best_first(manager: MemoryManager) -> None:
    tell(manager)
    found = manager.search_memories("Which puppies were adopted?", mode="words", limit=20)
    assert contents(found) == [TALK[2][1]]
    assert 0 < found[0]["score"] < 1
    assert manager.search_memories("xylophones", mode="words") == []


def test_what_was_said_around_it_helps_to_find_the_answer(manager: MemoryManager) -> None:
    tell(manager)
    manager.add_memories([{"content": content, "namespace": "apart"} for _, content in TALK])

    def rank(namespace: str) -> int:
        found = manager.search_memories("What is the puppy called?", limit=20, namespace=namespace)
        return contents(found).index(TALK[4][1])

    assert rank("default") < rank("apart")


def test_who_is_named_in_the_query_said_it(manager: MemoryManager) -> None:
    tell(manager, [("Ines", "I like pears a lot, too."), ("Rui", "I like pears a lot, too.")])
    [first, second] = manager.search_memories("Does Rui like pears?", explain=True)
    assert first["memory"].metadata["author"] == "Rui"
    assert (first["terms"]["author"].value, second["terms"]["author"].value) == (1, 0)


@pytest.mark.parametrize("mode", list(TERMS))
def test_a_score_is_the_weighted_sum_of_its_terms(manager: MemoryManager, mode: str) -> None:
    tell(manager)
    manager.add_memory("A note on puppies, by nobody", "semantic")
    found = manager.search_memories("the puppy of Ines in Braga", mode=mode, explain=True, limit=20)
    assert found
    for result in found:
        terms = result["terms"]
        assert {name: term.weight for name, term in terms.items()} == TERMS[relevance.SearchMode(mode)]
        assert result["score"] == pytest.approx(sum(t.value * t.weight for t in terms.values()), abs=1e-12)
        if mode != "vector":
            assert all(0 <= term.value <= 1 for term in terms.values())
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_min_score_cuts_a_hybrid_score_too(manager: MemoryManager) -> None:
    tell(manager)
    everything = manager.search_memories("puppy", limit=20)
    assert len(everything) == len(TALK)
    kept = manager.search_memories("puppy", limit=20, min_score=everything[2]["score"])
    assert scored(kept) == scored(everything[:3])


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ("Wo wohnen die Häuserbauer?", "Der Häuserbauer wohnt seit Mai in Köln."),
        ("STRASSE", "Die Straße ist gesperrt."),
        ("我的小狗叫什么名字", "昨天我领养了一只小狗,它叫豆豆。"),
        ("ما اسم الكتاب", "قرأت كِتابًا جديدًا عن النجوم."),
        ("собаки", "Нашей собаке нужен новый ошейник."),
    ],
    ids=["german", "german-folded", "chinese", "arabic", "russian"],
)
def test_words_of_other_languages_are_found(manager: MemoryManager, query: str, content: str) -> None:
    manager.add_memories([{"content": text} for _, text in TALK])
    wanted = manager.add_memory(content, "semantic")
    found = manager.search_memories(query, mode="words")
    assert [result["memory"].id for result in found] == [wanted.id]


@pytest.mark.parametrize("mode", list(TERMS))
def test_what_is_deleted_or_reworded_is_found_no_more_by_what_it_said(
    manager: MemoryManager, mode: str
) -> None:
    said = tell(manager)
    assert said[2].content in contents(manager.search_memories("adopted a puppy", mode=mode, limit=3))
    manager.delete_memory(said[2].id)
    assert said[2].content not in contents(manager.search_memories("adopted a puppy", mode=mode, limit=20))
    manager.update_memory(said[4].id, content="It is a cat, really.")
    best = manager.search_memories("Bolota acorn", mode=mode, min_score=0.4 if mode != "words" else 0)
    assert said[4].id not in [result["memory"].id for result in best]
    assert manager.search_memories("really a cat", mode="words")[0]["memory"].id == said[4].id


def test_a_changed_author_source_or_position_counts_at_once(manager: MemoryManager) -> None:
    said = tell(manager)
    manager.update_memory(said[7].id, metadata={"author": "Bento"})
    [first, *_] = manager.search_memories("Bento", explain=True)
    assert first["memory"].id == said[7].id
    assert first["terms"]["author"].value == 1

    def around(word: str, memory: Memory) -> float:
        found = manager.search_memories(word, limit=20, explain=True)
        return next(r["terms"]["words_around"].value for r in found if r["memory"].id == memory.id)

    assert around("Lisbon", said[6]) > 0
    manager.update_memory(said[7].id, source="chat:b")
    assert around("Lisbon", said[6]) == 0
    manager.update_memory(said[7].id, source="chat:a", metadata={"position": None})
    assert around("Lisbon", said[6]) == 0
    manager.update_memory(said[7].id, metadata={"position": 7})
    assert around("Lisbon", said[6]) > 0


@pytest.mark.parametrize("mode", list(TERMS))
def test_among_many_the_best_are_the_same_as_if_all_were_compared(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    tell(manager)
    manager.add_memories([{"content": f"Nothing but number {n}, again"} for n in range(150)])
    manager.add_memories([{"content": f"A puppy, {n}", "namespace": "other"} for n in range(150)])
    queries = ["the puppy of Ines", "Lisbon in May", "a blanket on Friday?"]
    compared = [scored(manager.search_memories(q, mode=mode, limit=4)) for q in queries]
    monkeypatch.setattr(relevance, "_COMPARED", 10)
    monkeypatch.setattr(relevance, "_POOL", 20)
    assert [scored(manager.search_memories(q, mode=mode, limit=4)) for q in queries] == compared


def test_other_namespaces_do_not_change_a_score(manager: MemoryManager) -> None:
    tell(manager)
    before = scored(manager.search_memories("the puppy in Braga", limit=20))
    manager.add_memories([{"content": f"puppy {n}", "namespace": "other"} for n in range(20)])
    assert scored(manager.search_memories("the puppy in Braga", limit=20)) == before


@pytest.mark.parametrize("mode", ["semantic", "", 1, None])
def test_a_mode_that_is_none_is_refused_with_those_there_are(manager: MemoryManager, mode: object) -> None:
    with pytest.raises(InvalidMemory, match=r"mode.*hybrid, vector, words"):
        manager.search_memories("puppy", mode=mode)  # type: ignore[arg-type]
