"""A hundred thousand memories: a search filtered to a few of them is exact, and the snapshot is used."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder

N = 100_000
RARE_EVERY = 1000  # 0.1 %
AT_ONCE = 10_000


class NoiseEmbedder(WordEmbedder):
    """A direction of its own for each text, without any meaning, and quickly."""

    fingerprint = "noise@1/64d/float32/unit"
    embedding_dim = 64

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts. Returns float32 (len(texts), 64), rows of length 1."""
        rows = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.embedding_dim)
        unit: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, NoiseEmbedder(), home / "index") as manager:
        for start in range(0, N, AT_ONCE):
            manager.add_memories(_draft(n) for n in range(start, start + AT_ONCE))
    with MemoryManager(database_url, NoiseEmbedder(), home / "index") as manager:
        yield manager


@pytest.mark.timeout(600)
def test_a_search_filtered_to_a_thousandth_returns_what_exact_search_over_those_returns(
    manager: MemoryManager,
) -> None:
    rare = [n for n in range(N) if n % RARE_EVERY == 0]
    vectors = NoiseEmbedder().encode([f"note {n}" for n in rare])
    for i in range(20):
        query = f"question {i}"
        scores = vectors @ NoiseEmbedder().encode([query])[0]
        best = [f"note {rare[j]}" for j in np.argsort(-scores)]
        found = manager.search_memories(query, "preference", limit=len(rare) + 5, mode="vector")
        assert [r["memory"].content for r in found] == best
        assert [r["score"] for r in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        in_namespace = manager.search_memories(query, limit=10, namespace="rare", mode="vector")
        assert [r["memory"].content for r in in_namespace] == [f"elsewhere {b}" for b in _best(query)]
    assert manager.verify().equal


def _draft(n: int) -> dict[str, object]:
    if n % RARE_EVERY == 1:
        return {"content": f"elsewhere {n}", "namespace": "rare"}
    return {"content": f"note {n}", "memory_type": "preference" if n % RARE_EVERY == 0 else "episodic"}


def _best(query: str) -> list[int]:
    numbers = [n for n in range(N) if n % RARE_EVERY == 1]
    scores = NoiseEmbedder().encode([f"elsewhere {n}" for n in numbers]) @ NoiseEmbedder().encode([query])[0]
    return [numbers[j] for j in np.argsort(-scores)[:10]]
