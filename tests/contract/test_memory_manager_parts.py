"""The library's other promised parts: the types, the embedding model, the index by itself."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from memory.embedding import EmbeddingModel
from memory.faiss_index import FAISSIndex
from memory.models import Memory, MemoryAssociation, MemoryType

TEXTS = ["The sky is blue", "I like pizza", "Pasta is my favourite food", "Il cielo è blu"]


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return EmbeddingModel()


def test_memory_type_is_a_str_enum_of_six() -> None:
    assert issubclass(MemoryType, str)
    assert issubclass(MemoryType, Enum)
    names = ["episodic", "semantic", "reflection", "task", "preference", "response"]
    assert [str(kind) for kind in MemoryType] == [kind.value for kind in MemoryType] == names
    assert [kind.name for kind in MemoryType] == [name.upper() for name in names]


def test_memory_and_association_have_the_promised_attributes() -> None:
    promised = {
        "id",
        "content",
        "memory_type",
        "source",
        "metadata",
        "created_at",
        "last_accessed",
        "importance",
    }
    assert promised <= set(dir(Memory)) | set(Memory.__slots__)
    promised = {"memory_id", "related_memory_id", "relationship_type", "strength", "metadata"}
    assert promised <= set(MemoryAssociation.__slots__)


def test_embedding_model_encodes_in_batches_to_unit_float32_rows(model: EmbeddingModel) -> None:
    rows = model.encode(TEXTS, batch_size=2)
    assert rows.dtype == np.float32
    assert rows.shape == (4, model.embedding_dim) == (4, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.allclose(rows, model.encode(TEXTS), atol=1e-5)
    assert np.allclose(rows[1], model.encode([TEXTS[1]])[0], atol=1e-5)
    assert model.encode([]).shape == (0, 384)


def test_embedding_model_says_how_similar_texts_are(model: EmbeddingModel) -> None:
    assert model.get_similarity("I like pizza", "I like pizza") == pytest.approx(1, abs=1e-5)
    assert model.get_similarity("I like pizza", "Pasta is my favourite food") > model.get_similarity(
        *TEXTS[:2]
    )
    best = model.get_most_similar("What do I like to eat?", TEXTS, top_k=2)
    assert {place for place, _ in best} == {1, 2}
    assert best[0][1] >= best[1][1] > 0
    assert model.get_most_similar("What do I like to eat?", TEXTS, top_k=5, threshold=0.99) == []


def test_faiss_index_finds_removes_and_keeps_on_disk(tmp_path: Path) -> None:
    rows = np.eye(4, dtype=np.float32)
    index = FAISSIndex(4)
    index.add_embeddings(rows, [10, 20, 30, 40])
    assert len(index) == 4
    assert index.search(rows[1], k=2, min_score=0.5) == [(20, 1.0)]
    assert [i for i, _ in index.search(rows[1])] == [20, 10, 30, 40]
    assert index.remove([20, 99]) == 1
    index.save(tmp_path / "vectors.faiss")
    loaded = FAISSIndex.load(tmp_path / "vectors.faiss")
    assert len(loaded) == 3
    assert loaded.search(rows[0], k=1) == [(10, 1.0)]
    loaded.clear()
    assert len(loaded) == 0
