"""A MemoryManager does what a plain dictionary would, in whatever order, on both databases."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, update

from memory import reembedding
from memory.database import Database
from memory.errors import InvalidMemory, NotFound, SnapshotFailed
from memory.memory_manager import MemoryManager
from memory.models import Memory, MemoryType
from memory.schema import associations, index_clock, index_events, index_state, memories, next_embeddings
from tests.fakes import ShortSightedEmbedder
from tests.invariants import assert_events_contiguous, assert_one_row_a_key

EXAMPLES = 500
STEPS = 8
LONG_AGO = datetime.now(UTC) - timedelta(days=100)

WORDS = ("tea", "coffee", "harbour", "boat", "letter", "garden", "snow", "piano")
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)  # up to three windows
types = st.sampled_from(list(MemoryType)[:3])
namespaces = st.sampled_from(["ann", "ben"])
importances = st.sampled_from([None, 0.0, 0.2, 0.5, 0.9])
strengths = st.sampled_from([0.0, 0.25, 0.5, 1.0])
kinds = st.sampled_from(["causes", "follows"])
uids = st.sampled_from([None, None, "first", "second"])
places = st.integers(0, 1000)


class TurnedEmbedder(ShortSightedEmbedder):
    """Another model: the same cosines between its own vectors, no sense beside those of the first."""

    fingerprint = "turned@1/32d/float32/unit"

    def encode(self, texts: Sequence[str]) -> Any:
        return np.roll(super().encode(texts), 7, axis=1)


@dataclass(frozen=True)
class Known:
    """What the dictionary knows of a live memory."""

    uid: str | None
    namespace: str
    content: str
    memory_type: MemoryType
    importance: float | None
    metadata: dict[str, Any]
    old: bool  # created long ago, and never found by a search


@dataclass
class Expected:
    """The dictionary."""

    live: dict[int, Known] = field(default_factory=dict)
    links: dict[tuple[int, int, str], float] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)  # the uids of deleted memories

    def drop(self, memory_id: int) -> None:
        known = self.live.pop(memory_id)
        if known.uid is not None:
            self.gone.add((known.namespace, known.uid))
        self.links = {link: s for link, s in self.links.items() if memory_id not in link[:2]}

    def steps(self, here: int) -> list[tuple[int, float, str]]:
        """Every association with a memory, as (there, strength, direction)."""
        out = [(b, s, "outgoing") for (a, b, _), s in self.links.items() if a == here]
        return out + [(a, s, "incoming") for (a, b, _), s in self.links.items() if b == here]

    def strongest(self, start: int, *, depth: int) -> dict[int, float]:
        """The strength of the strongest walk to each memory that is reached, by trying them all."""
        best: dict[int, float] = {}
        walks = [(start, 1.0)]
        for _ in range(depth):
            walks = [(there, s * step) for here, s in walks for there, step, _ in self.steps(here)]
            for there, s in walks:
                if there != start:
                    best[there] = max(best.get(there, 0.0), s)
        return best


class ManagerMachine(RuleBasedStateMachine):
    """One example: a fresh database, and a manager that is used, closed, crashed and reopened."""

    database: Database
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="memory-test-"))
        self.expected = Expected()
        self.n_steps = 0
        self.embedder: ShortSightedEmbedder = ShortSightedEmbedder()
        _empty(self.database)
        self.manager = self._open()

    def teardown(self) -> None:
        self.manager.close()
        shutil.rmtree(self.directory)

    def _open(self) -> MemoryManager:
        return MemoryManager(self.url, self.embedder, self.directory / "index")

    def _some(self, place: int) -> int:
        ids = sorted(self.expected.live)
        return ids[place % len(ids)]

    def _has_memories(self) -> bool:
        return bool(self.expected.live)

    @initialize(
        drafts=st.lists(st.tuples(contents, types, importances, st.booleans()), min_size=2, max_size=6),
        links=st.lists(st.tuples(places, places, kinds, strengths), min_size=2, max_size=8),
    )
    def begin_with_some(self, drafts: list[Any], links: list[tuple[int, int, str, float]]) -> None:
        for content, memory_type, importance, old in drafts:
            self.add(
                content=content,
                memory_type=memory_type,
                namespace="ann",
                importance=importance,
                uid=None,
                old=old,
            )
        for link in links:
            self.associate(*link)

    @rule(
        content=contents,
        memory_type=types,
        namespace=namespaces,
        importance=importances,
        uid=uids,
        old=st.booleans(),
    )
    def add(self, *, old: bool, uid: str | None, importance: float | None, **given: Any) -> None:
        metadata = {} if importance is None else {"importance": importance}
        created_at = LONG_AGO if old else None

        def call() -> Memory:
            return self.manager.add_memory(**given, metadata=metadata, uid=uid, created_at=created_at)

        if (given["namespace"], uid) in self.expected.gone:
            with pytest.raises(NotFound):
                call()
            return
        memory = call()
        if memory.id in self.expected.live:
            assert uid is not None
            return  # the first one under a uid counts
        assert memory.content == given["content"]
        self._learn(memory, old=old, uid=uid)

    def _learn(self, memory: Memory, *, old: bool, uid: str | None) -> None:
        self.expected.live[memory.id] = Known(
            uid=uid,
            namespace=memory.namespace,
            content=memory.content,
            memory_type=memory.memory_type,
            importance=memory.importance,
            metadata=memory.metadata,
            old=old,
        )

    @rule(content=contents)
    def fail_to_embed(self, content: str) -> None:
        def fail(_texts: Sequence[str]) -> Any:
            message = "the model broke"
            raise RuntimeError(message)

        self.embedder.encode = fail  # type: ignore[method-assign]
        try:
            with pytest.raises(RuntimeError):
                self.manager.add_memory(content, "semantic")
        finally:
            del self.embedder.encode

    @precondition(_has_memories)
    @rule(
        place=places, content=st.none() | contents, memory_type=st.none() | types, note=st.none() | contents
    )
    def change(
        self, place: int, content: str | None, memory_type: MemoryType | None, note: str | None
    ) -> None:
        memory_id = self._some(place)
        memory = self.manager.update_memory(
            memory_id, content, {"note": note, "importance": 0.1}, memory_type=memory_type
        )
        known = self.expected.live[memory_id]
        metadata = {**known.metadata, "note": note, "importance": 0.1}
        self.expected.live[memory_id] = replace(
            known,
            content=content or known.content,
            memory_type=memory_type or known.memory_type,
            metadata={k: v for k, v in metadata.items() if v is not None},
            importance=0.1,
        )
        assert memory.id == memory_id

    @precondition(_has_memories)
    @rule(place=places)
    def forget(self, place: int) -> None:
        memory_id = self._some(place)
        assert self.manager.delete_memory(memory_id)
        assert not self.manager.delete_memory(memory_id)
        assert self.manager.get_memory(memory_id) is None
        self.expected.drop(memory_id)

    @precondition(_has_memories)
    @rule(start=places, end=places, kind=kinds, strength=strengths)
    def associate(self, start: int, end: int, kind: str, strength: float) -> None:
        a, b = self._some(start), self._some(end)
        live = self.expected.live
        if a == b or live[a].namespace != live[b].namespace:
            with pytest.raises(InvalidMemory, match=r"^related_memory_id = "):
                self.manager.add_memory_association(a, b, kind, strength)
            return
        self.manager.add_memory_association(a, b, kind, strength)
        self.expected.links[a, b, kind] = strength

    @precondition(lambda self: bool(self.expected.links))
    @rule(place=places)
    def dissociate(self, place: int) -> None:
        link = sorted(self.expected.links)[place % len(self.expected.links)]
        assert self.manager.delete_memory_association(*link) == 1
        del self.expected.links[link]

    @rule(
        days=st.sampled_from([0, 30, 30, 200]),
        importance=st.sampled_from([0.0, 0.2, 0.5, 0.6]),
        memory_types=st.none() | st.lists(types, min_size=1, max_size=2),
        dry_run=st.booleans(),
    )
    def clean_up(
        self, days: int, importance: float, memory_types: list[MemoryType] | None, *, dry_run: bool
    ) -> None:
        stats = self.manager.cleanup_old_memories(days, importance, memory_types, dry_run)
        found = {
            i
            for i, known in self.expected.live.items()
            if (known.old or days == 0)
            and days < 100
            and (0.5 if known.importance is None else known.importance) < importance
            and (memory_types is None or known.memory_type in memory_types)
        }
        n_gone = 0 if dry_run else len(found)
        assert stats == {"total_found": len(found), "deleted": n_gone, "skipped": len(found) - n_gone}
        if not dry_run:
            for i in found:
                self.expected.drop(i)

    @rule(
        query=contents,
        namespace=namespaces,
        memory_types=st.none() | st.lists(types, min_size=1, max_size=2),
        limit=st.integers(1, 6),
        expand=st.integers(0, 3),
    )
    def search(
        self, query: str, namespace: str, memory_types: list[MemoryType] | None, limit: int, expand: int
    ) -> None:
        results = self.manager.search_memories(
            query, memory_types, limit, namespace=namespace, expand=expand, mode="vector"
        )
        hits = [r for r in results if "expanded_from" not in r]
        scores = {
            i: self._score(query, known.content)
            for i, known in self.expected.live.items()
            if known.namespace == namespace and (memory_types is None or known.memory_type in memory_types)
        }
        best = sorted(scores.values(), reverse=True)[:limit]
        assert [r["score"] for r in hits] == pytest.approx(best, abs=1e-5)
        assert [r["score"] for r in hits] == pytest.approx([scores[r["memory"].id] for r in hits], abs=1e-5)
        assert len({r["memory"].id for r in results}) == len(results)
        assert [r["rank"] for r in results] == list(range(1, len(results) + 1))
        self._check_neighbours(query, results, hits, expand)
        hybrid = self.manager.search_memories(query, memory_types, len(scores) or 1, namespace=namespace)
        assert sorted(r["memory"].id for r in hybrid) == sorted(scores)
        results += hybrid
        for r in results:
            self.expected.live[r["memory"].id] = replace(self.expected.live[r["memory"].id], old=False)

    def _score(self, query: str, content: str) -> float:
        [asked] = self.embedder.encode([query])
        [windows] = self.embedder.encode_windows([content])
        return float(max(windows @ asked))

    def _check_neighbours(self, query: str, results: list[Any], hits: list[Any], expand: int) -> None:
        found = {r["memory"].id for r in hits}
        strength: dict[int, float] = {}
        for hit in found:
            for there, s, _ in self.expected.steps(hit):
                if there not in found:
                    strength[there] = max(s, strength.get(there, 0.0))
        expected = sorted(strength.values(), reverse=True)[:expand]
        extra = results[len(hits) :]
        assert [r["relationship"]["strength"] for r in extra] == expected
        for r in extra:
            assert r["expanded_from"] in found
            assert r["score"] == pytest.approx(self._score(query, r["memory"].content), abs=1e-5)

    @precondition(_has_memories)
    @rule(place=places, depth=st.integers(1, 3), min_strength=st.sampled_from([0.0, 0.3]))
    def relate(self, place: int, depth: int, min_strength: float) -> None:
        start = self._some(place)
        answers = self.manager.get_related_memories(start, min_strength=min_strength, depth=depth)
        strengths_of = [a["relationship"]["strength"] for a in answers]
        assert strengths_of == sorted(strengths_of, reverse=True)
        steps = [step for step in self.expected.steps(start) if step[1] >= min_strength]
        direct = [a for a in answers if a["relationship"]["depth"] == 1]
        assert sorted(
            (a["memory"].id, a["relationship"]["strength"], a["relationship"]["direction"]) for a in direct
        ) == sorted(steps)
        reached = {i: s for i, s in self.expected.strongest(start, depth=depth).items() if s >= min_strength}
        near = {there for there, _, _ in steps}
        far = {
            a["memory"].id: a["relationship"]["strength"] for a in answers if a["relationship"]["depth"] > 1
        }
        assert far == {i: s for i, s in reached.items() if i not in near}

    @rule(disk_full=st.booleans())
    def save(self, *, disk_full: bool) -> None:
        if not disk_full:
            self.manager.save_index()
            return
        self.manager.add_memory("piano", "task", namespace="cat")  # so that there is something to save
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", _disk_full)
            with pytest.raises(SnapshotFailed):
                self.manager.save_index()
        [result] = self.manager.search_memories("piano", namespace="cat")
        assert self.manager.delete_memory(result["memory"].id)

    @rule(how=st.sampled_from(["closed", "crashed", "pointer lost", "vectors cut", "index lost"]))
    def open_again(self, how: str) -> None:
        if how == "crashed":
            self.manager._process.index.release()  # as the kernel does it for a dead process
            self.manager._process.database.close()
        else:
            self.manager.close()
        index = self.directory / "index"
        match how:
            case "pointer lost":
                (index / "CURRENT").write_text("nonsense")
            case "vectors cut":
                for path in index.glob("snapshots/*/vectors.faiss"):
                    path.write_bytes(path.read_bytes()[:-1])
            case "index lost":
                shutil.rmtree(index)
        self.manager = self._open()

    @rule(content=contents, namespace=namespaces)
    def another_process_adds(self, content: str, namespace: str) -> None:
        with self._open() as other:
            assert not other.owns_index
            memory = other.add_memory(content, "episodic", namespace=namespace)
            assert other.verify().equal
        self._learn(memory, old=False, uid=None)

    @rule(tidied=st.booleans())
    def change_the_model(self, *, tidied: bool) -> None:
        self.embedder = (
            ShortSightedEmbedder() if isinstance(self.embedder, TurnedEmbedder) else TurnedEmbedder()
        )
        with pytest.MonkeyPatch.context() as patch:
            if not tidied:  # as if it was killed right after the switch
                patch.setattr(reembedding, "tidy", lambda _database: None)
            assert self.manager.reembed(self.embedder) == len(self.expected.live)

    @invariant()
    def contents_are_those_of_the_dictionary(self) -> None:
        store = self.manager._process.store
        stored = store.live(sorted(self.expected.live))
        assert store.counts().stored == len(stored) == len(self.expected.live)
        for i, known in self.expected.live.items():
            memory = stored[i]  # type: ignore[index]
            assert (memory.content, memory.memory_type, memory.namespace, memory.importance) == (
                known.content,
                known.memory_type,
                known.namespace,
                known.importance,
            )
            assert memory.metadata == known.metadata

    @invariant()
    def associations_are_those_of_the_dictionary(self) -> None:
        found = self.manager._process.associations.around(sorted(self.expected.live))  # type: ignore[arg-type]
        links = {(a.memory_id, a.related_memory_id, a.relationship_type): a.strength for a in found}
        assert links == self.expected.links

    @invariant()
    def now_and_then_every_walk_and_search_is_right(self) -> None:
        self.n_steps += 1
        if self.n_steps % STEPS == 0:
            for place, known in enumerate(self.expected.live.copy().values()):
                self.relate(place, 3, 0.0)
                self.search(known.content, known.namespace, [known.memory_type], 3, 2)

    @invariant()
    def the_index_is_the_database(self) -> None:
        comparison = self.manager.verify()
        assert comparison.equal, comparison
        assert comparison.n_memories == len(self.expected.live)
        assert_events_contiguous(self.database)
        assert_one_row_a_key(self.database)


@pytest.mark.timeout(1200)
def test_a_manager_does_what_a_dictionary_would(database: Database, database_url: str) -> None:
    machine = type("Machine", (ManagerMachine,), {"database": database, "url": database_url})
    case: Callable[..., None] = machine.TestCase
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()  # type: ignore[attr-defined]


def _disk_full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def _empty(database: Database) -> None:
    """Make it a new, empty database."""
    with database.write() as connection:
        for table in (next_embeddings, associations, index_events, memories):
            connection.execute(delete(table))
        connection.execute(
            update(index_clock).values(
                head=0,
                lineage=str(uuid.uuid4()),
                model_fingerprint=None,
                model_dim=None,
                next_model_fingerprint=None,
                next_model_dim=None,
            )
        )
        connection.execute(update(index_state).values(applied_seq=0, snapshot=None, snapshot_seq=0))
