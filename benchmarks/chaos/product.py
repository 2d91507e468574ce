"""The pipeline itself, with a model that costs nothing, as the harness sees it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.examination import Contents, Findings, StoredRow, examine
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.plan import VICTIMS, Kind, Plan, Victim
from benchmarks.chaos.saved_index import compare_with_saved, read_embeddings
from benchmarks.chaos.workload import ClientEnqueuer
from benchmarks.null_embedder import windows
from benchmarks.running_stack import Stack, StackFailed
from memory.cleanup import CleanupPolicy
from memory.database import Database
from memory.errors import Recoverable, SearchUnavailable
from memory.models import Receipt
from memory.schema import index_clock, index_events, memories

_N_SEARCHES = 200
_CALM_TIMEOUT_S = 60


class Everkept:
    """`memory up` with the null model: the real processes under the real supervisor."""

    name = "everkept"
    is_meant_to_lose = False
    kinds: frozenset[Kind] = frozenset({"kill", "pause", "corrupt", "fill", "flush"})

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.words: Mapping[str, str] = {
            **{
                f"embed-{n}": f"null_stack embed --name embed-{n}" for n in range(1, plan.n_embed_workers + 1)
            },
            "indexer": "null_stack indexer",
            "beat": "workers beat",
        }
        self.module = (
            "benchmarks.null_stack",
            "up",
            "--embed-workers",
            str(plan.n_embed_workers),
        )

    @staticmethod
    def victims(*, sqlite: bool) -> tuple[Victim, ...]:
        return tuple(victim for victim in VICTIMS if not (sqlite and victim == "postgres"))

    def environment(self, home: Any) -> dict[str, str]:
        database = {"MEMORY_DB_URL": f"sqlite:///{home}/memories.db"} if self._plan.sqlite else {}
        # Often enough to be hit by kills, which leave no process a long life; the larger, the less often.
        snapshot_every_events = max(200, self._plan.n_memories // 100)
        return {
            **database,
            "MEMORY_SNAPSHOT_EVERY_EVENTS": str(snapshot_every_events),
            "MEMORY_MAINTENANCE_TICK_S": "1",
            "MEMORY_CLEANUP_EVERY_S": "10",
            "MEMORY_RECLAIM_AFTER_S": "10",
        }

    def enqueuer(self, stack: Stack) -> ClientEnqueuer:
        return ClientEnqueuer(PipelineClient(stack.settings()))

    def client(self, stack: Stack) -> PipelineClient | None:
        return PipelineClient(stack.settings())

    def wait_drained(self, stack: Stack, *, timeout_s: float) -> None:
        """Wait until nothing is under way. Raises StackFailed when time runs out."""
        deadline = time.monotonic() + timeout_s
        with PipelineClient(stack.settings()) as client:
            while time.monotonic() < deadline:
                _ = stack.place
                try:
                    status = client.status()
                    if not (status.waiting or status.pending or status.events_behind):
                        return
                    said = f"{status.waiting} wait, {status.pending} pend, {status.events_behind} behind"
                except Recoverable as error:
                    said = str(error)
                time.sleep(0.25)
        raise StackFailed(f"not drained within {timeout_s:g} s: {said}")

    def examine(self, stack: Stack, ledger: Ledger) -> Findings:
        """Examine everything, and stop the stack."""
        database = Database(stack.settings().database_url)
        with PipelineClient(stack.settings()) as client:
            _clean_up_for_good(client, ledger)
            _redeliver(client, ledger)
            self.wait_drained(stack, timeout_s=self._plan.drain_timeout_s)
            findings = Findings()
            _search(client, ledger, findings, self._plan)
            _compare(client, findings)
            contents = Contents(rows=_rows(database), in_index=Counter(), dead=_dead(client))
        _check_events(database, findings)
        embeddings = read_embeddings(database)
        database.close()
        settings = stack.settings()
        if (code := stack.stop()) != 0:
            findings.add("unexpected", f"the stack ended with {code}")
        in_index = compare_with_saved(settings, embeddings, findings)
        found = examine(ledger, Contents(rows=contents.rows, in_index=in_index, dead=contents.dead))
        for name, n in findings.wrong.items():
            setattr(found, name, getattr(found, name) + n)
        found.examples.extend(findings.examples)
        return found


def _clean_up_for_good(client: PipelineClient, ledger: Ledger) -> None:
    doomed = [known for known in ledger.memories.values() if known.doomed]
    for namespace in {known.draft["namespace"] for known in doomed}:
        policy = CleanupPolicy(namespace=namespace)
        _calmly(lambda policy=policy: client.cleanup(policy, dry_run=False, force=True))


def _redeliver(client: PipelineClient, ledger: Ledger) -> None:
    """Hand over again what was deleted, as it was at first: none of it may come back."""
    gone = [key for key, known in ledger.memories.items() if known.must_be_gone]
    outcomes = _calmly(lambda: client.outcomes([Receipt(uid=uid, namespace=space) for space, uid in gone]))
    buried = [key for key, outcome in zip(gone, outcomes, strict=True) if outcome.id is not None]
    _calmly(lambda: client.enqueue_many(ledger.memories[key].draft for key in buried))


def _search(client: PipelineClient, ledger: Ledger, findings: Findings, plan: Plan) -> None:
    """Search for some that must live, and some that must be gone, each by any part of its own words."""
    rng = plan.chance("search")
    live = [key for key, known in ledger.memories.items() if known.must_live and len(known.contents) == 1]
    gone = [key for key, known in ledger.memories.items() if known.must_be_gone]
    for keys, must_come in ((live, True), (gone, False)):
        for key in rng.sample(keys, min(_N_SEARCHES, len(keys))):
            known = ledger.memories[key]
            words = rng.choice(windows(next(iter(known.contents))))
            hits = _calmly(lambda words=words, key=key: client.search(words, namespace=key[0], limit=3))
            comes = key in {(hit.memory.namespace, hit.memory.uid) for hit in hits}
            if comes is not must_come:
                what = "lost" if must_come else "resurrected"
                findings.add(what, f"{key}: a search {'does not find' if must_come else 'finds'} it")


def _compare(client: PipelineClient, findings: Findings) -> None:
    comparison = _calmly(client.verify)
    if not comparison["equal"] or comparison["n_memories"] != comparison["n_vectors"]:
        n = comparison["n_missing"] + comparison["n_extra"] + comparison["n_different"]
        findings.add("drifted", comparison, n=max(1, n))


def _calmly(call: Any) -> Any:
    """Run what may still meet the end of a restart."""
    deadline = time.monotonic() + _CALM_TIMEOUT_S
    while True:
        try:
            return call()
        except (Recoverable, SearchUnavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _rows(database: Database) -> list[StoredRow]:
    columns = (memories.c.id, memories.c.namespace, memories.c.uid, memories.c.content)
    statement = select(*columns, memories.c.metadata, memories.c.deleted_at).order_by(memories.c.id)
    with database.snapshot() as connection:
        return [
            StoredRow(
                key=(row.namespace, row.uid),
                memory_id=row.id,
                content=row.content,
                revision=(row.metadata or {}).get("revision", 0),
                live=row.deleted_at is None,
            )
            for row in connection.execute(statement)
        ]


def _dead(client: PipelineClient) -> Counter[tuple[str, str]]:
    letters: Iterable[Any] = client.dead_letters(limit=1_000_000)
    return Counter((str(letter.namespace), str(letter.uid)) for letter in letters)


def _check_events(database: Database, findings: Findings) -> None:
    numbers = (func.count().label("n"), func.min(index_events.c.seq), func.max(index_events.c.seq))
    with database.snapshot() as connection:
        head = connection.scalar(select(index_clock.c.head))
        n, first, last = connection.execute(select(*numbers)).one()
    if n and (last != head or last - first + 1 != n):
        findings.add("drifted", f"{n} events from {first} to {last}, the head is {head}")
