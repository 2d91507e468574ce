"""The floor: what anybody writes in an afternoon. No queue, no second process, nothing kept if it dies."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from memory.embedding import DEFAULT_MODEL, locate

_BATCH = 32


class Floor:
    """SentenceTransformer.encode in float32 with all threads, then a flat FAISS index, then SQLite."""

    def __init__(self) -> None:
        logging.disable_progress_bar()
        self._model = SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
        self.encode(["The first pass is the slowest."] * _BATCH)

    def ingest(self, texts: Sequence[str]) -> Any:
        """Embed, index and store; return float32 (n, d), rows of length 1."""
        vectors = self.encode(texts)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        with (
            tempfile.TemporaryDirectory(prefix="memory-benchmark-") as place,
            contextlib.closing(sqlite3.connect(Path(place) / "floor.db")) as connection,
            connection,
        ):
            connection.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, content TEXT, embedding BLOB)")
            rows = [(i, text, vectors[i].tobytes()) for i, text in enumerate(texts)]
            connection.executemany("INSERT INTO memories VALUES (?, ?, ?)", rows)
        return vectors

    def encode(self, texts: Sequence[str]) -> Any:
        """Embed as everybody does; return float32 (n, d), rows of length 1."""
        return self._model.encode(
            list(texts), batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True
        )
