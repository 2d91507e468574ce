"""What a producer does with memories of its own beside enqueueing them: revise, delete, clean up, search."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.drafts import Drafts
from benchmarks.chaos.ledger import Attempts, Ending, Known, Ledger
from memory.cleanup import CleanupPolicy, CleanupReport
from memory.errors import NotFound, Recoverable
from memory.models import Memory, MemoryState, Receipt
from memory.store.rows import Key

_SEARCH_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Own:
    """The keys of one producer. `seen` are those it has seen in the database: their first content has won."""

    live: list[Key] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    doomed: set[Key] = field(default_factory=set)
    seen: set[Key] = field(default_factory=set)


class Operations:
    """Revises, deletes, cleans up and searches, and notes how each ended."""

    def __init__(
        self,
        client: PipelineClient,
        *,
        ledger: Ledger,
        attempts: Attempts,
        own: Own,
        drafts: Drafts,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._attempts = attempts
        self._own = own
        self._drafts = drafts
        self._rng = rng
        self._n_revisions = 0

    def update(self, n_more: int) -> None:
        found = self._some_live()
        if found is None:
            return
        key, known, memory = found
        self._n_revisions += 1
        revision = self._n_revisions
        content = (
            f"{key[1]} revision {revision}: {self._drafts.words()}" if self._rng.random() < 0.7 else None
        )
        ending, _ = self._attempts.run(
            "update",
            lambda: self._client.update(memory.id, content=content, metadata={"revision": revision}),
            n_more=n_more,
        )
        known.note_revised(content, revision, ending)

    def delete(self, n_more: int) -> None:
        found = self._some_live()
        if found is None:
            return
        key, known, memory = found
        known.deleted, _ = self._attempts.run("delete", lambda: self._client.delete(memory.id), n_more=n_more)
        self._own.live.remove(key)
        if known.must_be_gone:
            self._own.gone.append(key)

    def cleanup(self, n_more: int) -> None:
        """Forget by a policy for a namespace of its own. What was stored before, and is doomed, must go."""
        stored = self._stored_doomed()
        policy = CleanupPolicy(namespace=self._drafts.cleanup_namespace)
        ending, report = self._attempts.run("cleanup", lambda: self._clean_up(policy), n_more=n_more)
        if ending is Ending.ACKNOWLEDGED and report and report.skipped == 0:
            for key in stored:
                self._ledger.memories[key].deleted = Ending.ACKNOWLEDGED
            self._own.doomed.difference_update(stored)

    def search(self, n_more: int) -> None:
        """Search for a memory by its own words; one that was deleted before must not come."""
        keys = self._own.gone if self._own.gone and self._rng.random() < 0.4 else self._own.live
        if not keys:
            return
        key = self._rng.choice(keys)
        words = sorted(self._ledger.memories[key].contents)[0]
        _, hits = self._attempts.run(
            "search",
            lambda: self._client.search(words, namespace=key[0], limit=5, timeout_s=_SEARCH_TIMEOUT_S),
            n_more=min(n_more, 3),
        )
        found = {(hit.memory.namespace, hit.memory.uid) for hit in hits or ()}
        back = found.intersection(self._own.gone)
        self._ledger.resurrected.extend(f"a search found {key}" for key in back)

    def _clean_up(self, policy: CleanupPolicy) -> CleanupReport:
        return self._client.cleanup(policy, dry_run=False, force=True)

    def _some_live(self) -> tuple[Key, Known, Memory] | None:
        """Return a live memory by chance, `None` where it is not stored yet or the database is away."""
        if not self._own.live:
            return None
        key = self._rng.choice(self._own.live)
        try:
            memory = self._client.get_by_uid(key[1], namespace=key[0])
        except (NotFound, Recoverable):
            self._ledger.n_skipped += 1
            return None
        known = self._ledger.memories[key]
        if key not in self._own.seen:
            self._own.seen.add(key)
            if memory.content in known.contents:
                known.contents = {memory.content}
        return key, known, memory

    def _stored_doomed(self) -> list[Key]:
        keys = sorted(self._own.doomed)
        try:
            outcomes = self._client.outcomes([Receipt(uid=uid, namespace=space) for space, uid in keys])
        except Recoverable:
            return []
        there = {MemoryState.STORED, MemoryState.SEARCHABLE}
        return [key for key, outcome in zip(keys, outcomes, strict=True) if outcome.state in there]
