"""The workload: producers, each a thread with a client and memories of its own.

What a producer does next is decided by chance, from the seed. It goes on after an outage with the same uids,
as a real one would; now and then it gives up at once, so that indeterminate operations stay so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.drafts import Drafts
from benchmarks.chaos.ledger import Attempts, Draft, Ending, Ledger
from benchmarks.chaos.operations import Operations, Own
from benchmarks.chaos.pace import Aborted, Pace
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.poison import Poisoner

_N_TRIES = 300
_GIVES_UP_AT_ONCE = 0.2
_ENQUEUES = {"single": 30, "bulk": 20, "again": 6}
_OTHERS = {"doomed": 4, "update": 20, "delete": 12, "search": 12, "cleanup": 3}


class Enqueuer(Protocol):
    """What any pipeline can do, a naive one, too. Returns when all is accepted."""

    def single(self, draft: Draft) -> object: ...
    def bulk(self, drafts: Sequence[Draft]) -> object: ...
    def close(self) -> None: ...


class ClientEnqueuer:
    """Hands over through the client: a single one ahead of every bulk."""

    def __init__(self, client: PipelineClient) -> None:
        self._client = client

    def single(self, draft: Draft) -> object:
        return self._client.enqueue(**draft)

    def bulk(self, drafts: Sequence[Draft]) -> object:
        enqueued = self._client.enqueue_many(drafts, patience_s=1)
        if enqueued.rejected:
            raise AssertionError(enqueued.rejected)
        return enqueued

    def close(self) -> None:
        self._client.close()


class Producer(threading.Thread):
    """One thread of the workload.

    Args:
        number: of the thread.
        plan: how much in all.
        enqueuer: where memories are handed over.
        client: what else can be done with them; `None`: nothing.
        poisoner: puts entries on the stream that can never be stored.
        ledger: gets what happened.
        pace: how far it may go.
        on_failure: called with what ends the thread early.

    """

    def __init__(
        self,
        number: int,
        *,
        plan: Plan,
        enqueuer: Enqueuer,
        client: PipelineClient | None,
        poisoner: Poisoner | None,
        ledger: Ledger,
        pace: Pace,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name=f"producer-{number}", daemon=True)
        self._rng = plan.chance(self.name)
        self._drafts = Drafts(number, self._rng)
        self._n_to_do = plan.n_memories // plan.n_threads + (number < plan.n_memories % plan.n_threads)
        self._n_done = 0
        self._enqueuer = enqueuer
        self._poisoner = poisoner
        self._ledger = ledger
        self._attempts = Attempts(ledger, pause=pace.rest)
        self._pace = pace
        self._on_failure = on_failure
        self._own = Own()
        self._acts: dict[str, Callable[[int], None]] = {
            "single": self._single,
            "bulk": self._bulk,
            "again": self._again,
        }
        if client:
            self._acts |= {"doomed": self._doomed, **self._operations(client)}

    def run(self) -> None:
        weights = [{**_ENQUEUES, **_OTHERS}[name] for name in self._acts]
        try:
            while self._n_done < self._n_to_do:
                self._pace.wait_for(self._n_done / self._n_to_do)
                [act] = self._rng.choices([*self._acts.values()], weights)
                act(0 if self._rng.random() < _GIVES_UP_AT_ONCE else _N_TRIES)
                if self._poisoner:
                    self._poisoner.keep_up(self._n_done / self._n_to_do)
        except Aborted:
            pass
        except BaseException as error:  # noqa: BLE001 (the run's to report)
            self._on_failure(error)

    def _operations(self, client: PipelineClient) -> dict[str, Callable[[int], None]]:
        operations = Operations(
            client,
            ledger=self._ledger,
            attempts=self._attempts,
            own=self._own,
            drafts=self._drafts,
            rng=self._rng,
        )
        return {
            "update": operations.update,
            "delete": operations.delete,
            "search": operations.search,
            "cleanup": operations.cleanup,
        }

    def _single(self, n_more: int) -> None:
        draft = self._drafts.new()
        self._enqueue([draft], lambda: self._enqueuer.single(draft), n_more=n_more)

    def _bulk(self, n_more: int) -> None:
        drafts = [self._drafts.new() for _ in range(self._rng.randint(2, 50))]
        if self._rng.random() < 0.3:  # one uid twice in a bulk
            drafts.append(self._drafts.again(self._rng.choice(drafts)))
        self._enqueue(drafts, lambda: self._enqueuer.bulk(drafts), n_more=n_more)

    def _again(self, n_more: int) -> None:
        """Hand over what was handed over before: waiting, revised or deleted, it must stay as it is."""
        keys = self._own.gone if self._own.gone and self._rng.random() < 0.4 else self._own.live
        if keys:
            draft = self._drafts.again(self._ledger.memories[self._rng.choice(keys)].draft)
            self._enqueue([draft], lambda: self._enqueuer.single(draft), n_more=n_more)

    def _doomed(self, n_more: int) -> None:
        """Hand over what a cleanup must take, and what it must spare."""
        doomed = [self._drafts.doomed() for _ in range(self._rng.randint(1, 20))]
        spared = [self._drafts.spared() for _ in range(self._rng.randint(1, 8))]
        self._enqueue(
            [*doomed, *spared],
            lambda: self._enqueuer.bulk([*doomed, *spared]),
            n_more=n_more,
            n_doomed=len(doomed),
        )

    def _enqueue(
        self, drafts: Sequence[Draft], call: Callable[[], object], *, n_more: int, n_doomed: int = 0
    ) -> None:
        """Hand over and note it. The first `n_doomed` are doomed."""
        ending, _ = self._attempts.run("enqueue", call, n_more=n_more)
        in_cleanup = n_doomed > 0
        for n, draft in enumerate(drafts):
            key = (str(draft["namespace"]), str(draft["uid"]))
            is_new = key not in self._ledger.memories
            self._ledger.note_enqueued(
                draft, ending, doomed=n < n_doomed, first_has_won=key in self._own.seen
            )
            self._n_done += is_new
            if is_new and n < n_doomed:
                self._own.doomed.add(key)
            elif is_new and ending is Ending.ACKNOWLEDGED and not in_cleanup:
                self._own.live.append(key)
