"""The corpus that large stacks are filled with: what its i-th memory is, and which share each filter keeps.

All but one in a thousand lie in one namespace, so that a search without types goes over practically all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.rig.texts import corpus_sentences

LARGE, SMALL = "corpus", "corner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a search is asked to look among, by a name that says which share of the corpus that is."""

    name: str
    namespace: str = LARGE
    memory_type: str | None = None


FILTERS = (
    Filter(name="all"),
    Filter(name="50 %", memory_type="episodic"),
    Filter(name="1 %", memory_type="reflection"),
    Filter(name="0.1 %", memory_type="preference"),
    Filter(name="0.1 %, a namespace", namespace=SMALL),
)


def drafts(start: int, stop: int) -> Iterator[dict[str, str]]:
    """Yield the memories of these positions. Each has its uid, so that the same ones again add nothing."""
    sentences = corpus_sentences()
    for i in range(start, stop):
        yield {
            "content": f"{sentences[i % len(sentences)]} ({i})",
            "uid": str(i),
            "namespace": namespace_of(i),
            "memory_type": type_of(i),
        }


def namespace_of(i: int) -> str:
    """Return the namespace of the i-th memory."""
    return SMALL if i % 1000 == 8 else LARGE


def type_of(i: int) -> str:
    """Return the type of the i-th memory."""
    if i % 2:
        return "episodic"
    if i % 1000 == 0:
        return "preference"
    return "reflection" if i % 100 == 50 else "semantic"
