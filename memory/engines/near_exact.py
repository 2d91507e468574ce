"""How near an engine's vectors are to torch's float32: measured on texts of every kind, never believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.engines.engine import Engine, Vectors

NEAR_EXACT = 0.9999
"""Least cosine to torch's float32 vector, of each text, with which vectors may be mixed under one name."""
INT8_MEAN = 0.99
"""Least mean cosine of int8 over turns of a chat; its vectors have a name of their own."""

_SENTENCES = (
    "The cat sleeps on the warm stove.",
    "She prefers tea without sugar, and said so twice.",
    "The central bank raised interest rates by 0.25 %.",
    "Remind me to call the roofer on 3 March at 14:30!",
    "ok",
    "No.",
    "?",
    "",
    "   ",
    "\n\t\n",
    "1234567890",
    "THE ALARM WENT OFF AT NIGHT",
    "Der Wind dreht auf Südwest; morgen wird es Regen geben.",
    "Où est la clé du phare ? Sous le pot de géranium.",
    "雪が降っている。明日は晴れるでしょう。",
    "Маяк стоит на краю скалы.",
    "القط نائم قرب الموقد",
    "네, 내일 아침에 만나요.",
    "🙂🙃🔥 🇵🇹 👩‍👩‍👧",
    "cafe\u0301 versus caf\u00e9, \u200bzero width\u200d joiners",
    "def add(a: int, b: int) -> int:\n    return a + b  # as it should be",
    "SELECT id, content FROM memories WHERE deleted_at IS NULL ORDER BY id DESC LIMIT 10;",
    '{"uid": "a:1", "metadata": {"importance": 0.7, "tags": ["x", "y"]}}',
    "https://example.org/a/b?c=d&e=f#g",
    "-----BEGIN CERTIFICATE-----MIIBszCCARygAwIBAgIJAO",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Antidisestablishmentarianism and pneumonoultramicroscopicsilicovolcanoconiosis.",
    "the the the the the the the the",
)
_STORY = (
    "I've got a house that's slowly trying to go back to nature. The gutter on the north side came down in "
    "February, the roofer wants 2,400 euros, and my sister says to sell. What would you look at first? "
)
CHECKED_TEXTS: tuple[str, ...] = (
    *_SENTENCES,
    *(_STORY * n for n in (1, 2, 3, 5, 8, 30)),
    *(" ".join(_SENTENCES[n : n + 5]) for n in range(0, 24, 4)),
)
"""Short, long (far past 256 word pieces), of many scripts, code, next to nothing."""


def vectors_of(engine: Engine, texts: Sequence[str] = CHECKED_TEXTS) -> Vectors:
    """Pass texts through an engine, a few together, with padding. Returns float32 (len(texts), d)."""
    tokenized = engine.tokenize(list(texts))
    passes = [list(tokenized.rows[n : n + 8]) for n in range(0, len(texts), 8)]
    return np.concatenate([engine.run(rows) for rows in passes])


def cosines(vectors: Vectors, exact: Vectors) -> Vectors:
    """Return the cosine of each pair of rows, float32 (n,); -1 where one of them is unusable."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
    usable = np.isfinite(lengths) & (lengths > 1e-12)
    products = np.einsum("nd,nd->n", vectors, exact)
    found: Vectors = np.divide(products, lengths, out=np.full_like(products, -1), where=usable)
    return found
