"""What a search may be asked for beside its query: times, boosts, unlikeness, pages, budgets, reranking."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memory import relevance
from memory.errors import InvalidMemory, NoReranker
from memory.memory_manager import MemoryManager
from memory.prompt_text import about_tokens, prompt_text
from memory.results import SearchResult
from tests.fakes import WordEmbedder
from tests.unit.test_ranking import tiny_cross_encoder

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def kites(manager: MemoryManager, n: int = 30, **fields: Any) -> None:
    """Store kites, one a day up to NOW; the newest is the last one."""
    manager.add_memories(
        {
            "content": f"a red kite, number {i}",
            "created_at": NOW - timedelta(days=n - 1 - i),
            "uid": f"kite-{i}",
            **fields,
        }
        for i in range(n)
    )


def uids(results: list[SearchResult]) -> list[str]:
    return [result["memory"].uid for result in results]


def test_a_search_can_be_bounded_in_time_and_to_sources(manager: MemoryManager) -> None:
    kites(manager)
    manager.add_memory("a red kite", "episodic", "chat:b", uid="b", created_at=NOW)
    since = manager.search_memories("kite", limit=50, since="2026-01-30")
    assert sorted(uids(since)) == ["b", "kite-28", "kite-29"]
    assert sorted(uids(manager.search_memories("kite", limit=50, until="2026-01-03"))) == ["kite-0"]
    between = manager.search_memories("kite", limit=50, since="2026-01-10", until="2026-01-12T00:00:00+00:00")
    assert sorted(uids(between)) == ["kite-8", "kite-9"]
    assert uids(manager.search_memories("kite", source="chat:b")) == ["b"]
    assert len(manager.search_memories("kite", limit=50, source=["chat:b", "user"])) == 31
    told = manager.search_memories("the kite of yesterday", limit=50, read_times=True, now=NOW)
    assert uids(told) == ["kite-28"]
    assert len(manager.search_memories("the kite of yesterday", limit=50, now=NOW)) == 31


def test_boosts_change_the_order_within_what_is_relevant_and_say_how(manager: MemoryManager) -> None:
    kites(manager, 10)
    manager.add_memory(
        "bread and butter", "episodic", uid="bread", created_at=NOW, metadata={"importance": 1}
    )
    manager.search_memories("number 3", mode="words", limit=1)
    accessed = manager.search_memories("kite", limit=1, access=1, mode="words")
    assert uids(accessed) == ["kite-3"]
    plain = manager.search_memories("kite", limit=20, mode="vector", now=NOW)
    fresh = manager.search_memories(
        "kite", limit=20, mode="vector", recency=1, half_life_days=1, now=NOW, explain=True
    )
    assert fresh[0]["memory"].uid == "kite-9"
    scores = {result["memory"].uid: result["score"] for result in plain}
    for result in fresh:
        boost = result["boosts"]["recency"]
        age = (NOW - result["memory"].created_at).days
        assert boost.value == pytest.approx(2**-age)
        score = scores[result["memory"].uid]
        assert result["score"] == pytest.approx(score * (boost.value if score > 0 else 1))
    assert uids(manager.search_memories("kite", limit=20, mode="vector", importance=0.5))[-1] == "bread"


def test_the_best_by_boosts_are_found_among_many_that_are_more_relevant(manager: MemoryManager) -> None:
    kites(manager, 120, metadata={"importance": 0.1})
    wanted = manager.add_memory("a kite by the red sea at noon", "episodic", metadata={"importance": 1})
    found = manager.search_memories("a red kite", limit=1, importance=1)
    assert found[0]["memory"].id == wanted.id


def test_results_can_be_unlike_each_other(manager: MemoryManager) -> None:
    kites(manager, 20)
    manager.add_memory("a blue whale", "episodic", uid="whale")
    assert "whale" not in uids(manager.search_memories("a red kite", limit=5, mode="vector"))
    unlike = manager.search_memories("a red kite", limit=5, mode="vector", diversity=0.7)
    assert "whale" in uids(unlike)
    assert len(set(uids(unlike))) == 5
    assert [result["rank"] for result in unlike] == [1, 2, 3, 4, 5]
    assert manager.search_memories("anything", namespace="empty", diversity=1) == []


def test_what_says_the_same_comes_once_and_makes_room_for_others(manager: MemoryManager) -> None:
    manager.add_memories([{"content": "The red kite "} for _ in range(60)])
    manager.add_memory("the red kite", "episodic", metadata={"author": "Ines"})
    manager.add_memories([{"content": f"bread number {n}"} for n in range(3)])
    found = manager.search_memories("the red kite", limit=5, distinct=True)
    said = sorted(result["memory"].content.strip().casefold() for result in found)
    assert said == ["bread number 0", "bread number 1", "bread number 2", "the red kite", "the red kite"]
    assert len(manager.search_memories("the red kite", limit=50)) == 50


@pytest.mark.parametrize("mode", ["hybrid", "vector", "words"])
def test_pages_together_are_the_whole(manager: MemoryManager, mode: str) -> None:
    kites(manager, 40)
    manager.add_memories([{"content": "a red kite, number 7"} for _ in range(5)])
    options: Any = {"mode": mode, "recency": 0.5, "now": NOW, "distinct": True}
    whole = manager.search_memories("a red kite", limit=100, **options)
    pages: list[SearchResult] = []
    while page := manager.search_memories(
        "a red kite", limit=7, **options, after=pages[-1]["cursor"] if pages else None
    ):
        pages += page
    assert [(r["memory"].id, r["score"], r["rank"]) for r in pages] == [
        (r["memory"].id, r["score"], r["rank"]) for r in whole
    ]
    assert len(pages) == 40


def test_what_comes_and_goes_between_two_pages_neither_shifts_nor_repeats_a_hit(
    manager: MemoryManager,
) -> None:
    kites(manager, 20)
    first = manager.search_memories("a red kite, number 3", limit=6, mode="vector")
    rest = uids(manager.search_memories("a red kite, number 3", limit=50, mode="vector"))[6:]
    manager.delete_memory(first[2]["memory"].id)
    manager.add_memory("a red kite, number 3", "episodic", uid="better")
    second = manager.search_memories(
        "a red kite, number 3", limit=50, mode="vector", after=first[-1]["cursor"]
    )
    assert uids(second) == rest


def test_a_page_of_another_search_is_refused(manager: MemoryManager) -> None:
    kites(manager, 4)
    cursor = manager.search_memories("kite", limit=2)[-1]["cursor"]
    assert len(manager.search_memories("kite", limit=3, explain=True, after=cursor)) == 2
    for other in ({"mode": "words"}, {"where": {"source": "user"}}, {"recency": 0.1}, {"namespace": "b"}):
        with pytest.raises(InvalidMemory, match="a cursor of the same search"):
            manager.search_memories("kite", limit=2, after=cursor, **other)  # type: ignore[arg-type]


def test_as_many_come_as_fit_into_a_prompt(manager: MemoryManager) -> None:
    kites(manager, 30, source="chat:a")
    manager.add_memory("a red kite " * 200, "episodic")
    found = manager.search_memories("a red kite", limit=30, max_tokens=200)
    assert 3 < len(found) < 30
    block = prompt_text(found)
    assert about_tokens(block) <= 200
    assert 'source="chat:a"' in block
    assert manager.search_memories("a red kite", limit=30, max_tokens=1) == []


def test_the_best_are_read_again_by_a_reranker(
    database_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memories([{"content": f"pears, plums and the sea {'pears ' * n}"} for n in range(60)])
        with pytest.raises(NoReranker, match="MEMORY_RERANKER"):
            manager.search_memories("pears", rerank=True)
    monkeypatch.setenv("MEMORY_RERANKER", str(tiny_cross_encoder(tmp_path)))
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        best = {r["memory"].id for r in manager.search_memories("pears", limit=50)}
        found = manager.search_memories("pears", limit=50, rerank=True)
        scores = [result["score"] for result in found]
        assert {result["memory"].id for result in found} == best
        assert scores == sorted(scores, reverse=True)
        assert all(result["rerank_ms"] > 0 and "cursor" not in result for result in found)
        assert uids(manager.search_memories("pears", limit=3, rerank=True)) == uids(found)[:3]


def test_filters_do_not_starve_among_many_that_are_nearer(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relevance, "_COMPARED", 20)
    monkeypatch.setattr(relevance, "_POOL", 20)
    kites(manager, 300)
    manager.add_memories(
        [{"content": f"bread number {n}", "metadata": {"kind": "bread", "n": n}} for n in range(7)]
    )
    found = manager.search_memories("a red kite", limit=7, where={"metadata.kind": "bread"})
    assert len(found) == 7
    one = manager.search_memories("a red kite", limit=7, where={"metadata.n": {"gt": 5}})
    assert [result["memory"].content for result in one] == ["bread number 6"]
    assert manager.search_memories("a red kite", where={"metadata.kind": "stone"}) == []
