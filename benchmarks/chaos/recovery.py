"""Recovery time: from a kill until a memory that was enqueued after it is found by a search.

It is the time that a user waits, so it holds the restart, the queue and whatever else is down just then. The
probe takes the fast lane, like any single memory.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.ledger import Draft, Ending, Ledger
from benchmarks.chaos.plan import Victim
from memory.errors import NotYetSearchable, Recoverable, SearchUnavailable
from memory.models import MemoryState, Receipt

NAMESPACE = "probe"
MEASURED: frozenset[Victim] = frozenset({"worker", "indexer", "redis", "postgres"})
"""Beat's death is not noticed at once: it only makes up for lost nudges."""

_GIVEN_UP_AFTER_S = 90.0
_LOOK_EVERY_S = 0.03
_SEARCH_TIMEOUT_S = 2.0


@dataclass
class Probe:
    """One kill, and how long it took until a memory enqueued after it was found."""

    victim: Victim
    killed_at: float
    took_s: float = _GIVEN_UP_AFTER_S
    counts: bool = True  # not if it was killed again before
    found: threading.Event = field(default_factory=threading.Event)


class Recovery:
    """Measures kills beside each other, each with a probe of its own."""

    def __init__(self, client: PipelineClient, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe")
        self._probes: list[Probe] = []

    def measure(self, victim: Victim, killed_at: float) -> Probe | None:
        """Begin to measure; returns at once. `None`: nobody would notice this victim's recovery."""
        if victim not in MEASURED:
            return None
        probe = Probe(victim, killed_at)
        self._probes.append(probe)
        self._pool.submit(self._run, probe)
        return probe

    def times_s(self) -> dict[Victim, list[float]]:
        """Wait for every probe; return the recovery times in seconds by victim, ascending."""
        self._pool.shutdown(wait=True)
        times: dict[Victim, list[float]] = {}
        for probe in self._probes:
            if probe.counts:
                times.setdefault(probe.victim, []).append(probe.took_s)
        return {victim: sorted(found) for victim, found in times.items()}

    def _run(self, probe: Probe) -> None:
        try:
            probe.took_s = self._found_after_s(probe.killed_at)
        except Exception as error:  # noqa: BLE001 (whatever else comes out of a client is a finding)
            self._ledger.unexpected.append(f"probe: {type(error).__name__}: {error}")
        finally:
            probe.found.set()

    def _found_after_s(self, killed_at: float) -> float:
        n = next(self._numbers)
        draft = {
            "content": f"Probe number {n} asks who is awake",
            "uid": f"probe-{n}",
            "namespace": NAMESPACE,
        }
        ending = Ending.FAILED
        while time.monotonic() - killed_at < _GIVEN_UP_AFTER_S:
            try:
                if ending is not Ending.ACKNOWLEDGED:
                    ending = Ending.INDETERMINATE
                    self._client.enqueue(draft["content"], uid=draft["uid"], namespace=NAMESPACE)
                    ending = Ending.ACKNOWLEDGED
                if self._is_found(draft):
                    took_s = time.monotonic() - killed_at
                    self._note(draft, ending)
                    return took_s
            except (Recoverable, SearchUnavailable, NotYetSearchable):
                pass
            time.sleep(_LOOK_EVERY_S)
        self._note(draft, ending)
        self._ledger.unexpected.append(
            f"{draft['uid']} was not found within {_GIVEN_UP_AFTER_S:g} s of a kill"
        )
        return _GIVEN_UP_AFTER_S

    def _is_found(self, draft: Draft) -> bool:
        [outcome] = self._client.outcomes([Receipt(uid=draft["uid"], namespace=NAMESPACE)])
        if outcome.state is not MemoryState.SEARCHABLE:
            return False
        hits = self._client.search(
            draft["content"],
            namespace=NAMESPACE,
            limit=1,
            min_seq=outcome.seq,
            timeout_s=_SEARCH_TIMEOUT_S,
        )
        return bool(hits) and hits[0].memory.uid == draft["uid"]

    def _note(self, draft: Draft, ending: Ending) -> None:
        self._ledger.note_enqueued({**draft, "metadata": {"revision": 0}}, ending)
        self._ledger.note("probe", ending)
