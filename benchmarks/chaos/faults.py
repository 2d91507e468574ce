"""The faults: one thread a victim, that does them in the order of the plan, each to a victim that works.

A kill counts only after the victim was ready again since its last one; otherwise all but the first would hit
nothing but start-ups. Some come that soon, while it still has its hands full of what the last one left, but
never three in a row: a memory that is in hand at five deaths would rightly be given up. Before all others its
work must have been seen: a memory enqueued after the last kill was found by a search.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import psutil
import redis

from benchmarks.chaos.pace import Aborted, Pace
from benchmarks.chaos.plan import Kind, Plan, Victim
from benchmarks.chaos.recovery import Probe
from benchmarks.chaos.snapshots import IndexFiles
from benchmarks.running_stack import Stack

OnKill = Callable[[Victim, float], Probe | None]
"""Called with the victim and the instant of its kill, `time.monotonic()`; begins to measure its recovery."""

_SOON_SHARE = 0.5
_MOST_SOON = 2  # in a row
_AHEAD = 0.05
"""A main victim's faults may be ahead of another one's by this share."""

_LONGEST_PAUSE_S = 3.0
_LONGEST_FILL_S = 1.5


class Tormentor(threading.Thread):
    """All faults of one victim, one after the other."""

    def __init__(
        self,
        victim: Victim,
        *,
        plan: Plan,
        stack: Stack,
        pace: Pace,
        on_kill: OnKill,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name=f"faults-{victim}", daemon=True)
        self.done: Counter[str] = Counter()
        self.victim: Victim = victim
        self._faults: Sequence[Kind] = plan.faults[victim]
        self._is_main = victim in plan.main_victims
        self._rng = plan.chance(f"faults/{victim}")
        self._n_embed_workers = plan.n_embed_workers
        self._longest_rest_s = plan.longest_rest_s
        self._stack = stack
        self._pace = pace
        self._on_kill = on_kill
        self._on_failure = on_failure
        self._killed_pids: dict[str, int] = {}
        self._probe: Probe | None = None
        self._n_soon = 0
        self._files = IndexFiles(stack.home / "index", hideout=stack.home / "hideout")

    def run(self) -> None:
        try:
            for n, kind in enumerate(self._faults):
                self._next(n, kind)
            for name, pid in self._killed_pids.items():
                self._stack.wait_ready(name, not_pid=pid)
        except Aborted:
            pass
        except BaseException as error:  # noqa: BLE001 (the run's to report)
            self._on_failure(error)

    def _next(self, n: int, kind: Kind) -> None:
        n_all = len(self._faults)
        self._pace.wait_for(n / n_all - (_AHEAD if self._is_main else 0))
        name = self._pick()
        process = self._stack.wait_ready(name, not_pid=self._killed_pids.get(name))
        self._wait_for_effect()
        if self._is_main:
            self._pace.reach(self.victim, (n + 0.5) / n_all)
        self._pace.rest(self._rng.uniform(0, self._longest_rest_s))
        self._do(kind, process, name)
        if self._is_main:
            self._pace.reach(self.victim, (n + 1) / n_all)

    def _wait_for_effect(self) -> None:
        """Let the victim do its work first, most times."""
        is_soon = self._rng.random() < _SOON_SHARE and self._n_soon < _MOST_SOON
        self._n_soon = self._n_soon + 1 if is_soon else 0
        if self._probe is None:
            return
        if is_soon:
            self._probe.counts = self._probe.found.is_set()
        while not (is_soon or self._probe.found.is_set()):
            self._pace.rest(0.05)

    def _pick(self) -> str:
        if self.victim != "worker" or "worker" in self._stack.words:
            return self.victim
        return f"embed-{self._rng.randint(1, self._n_embed_workers)}"

    def _do(self, kind: Kind, process: psutil.Process, name: str) -> None:
        if kind in {"kill", "corrupt"}:
            process = self._kill(process, name)
        if kind == "corrupt":
            self._corrupt(process)
        elif kind == "pause":
            _pause(process, self._rng, rest=self._pace.rest)
        elif kind == "fill":
            self._fill()
        elif kind == "flush":
            with contextlib.suppress(redis.RedisError), self._stack.redis("broker") as broker:
                broker.flushdb()
        self.done[kind] += 1

    def _kill(self, process: psutil.Process, name: str) -> psutil.Process:
        """Kill it; return the process that was killed."""
        while True:
            self._killed_pids[name] = process.pid
            try:
                process.kill()
                break
            except psutil.NoSuchProcess:  # it ended by itself just now, and that does not count
                process = self._stack.wait_ready(name, not_pid=process.pid)
        self._probe = self._on_kill(self.victim, time.monotonic())
        return process

    def _corrupt(self, process: psutil.Process) -> None:
        """Do it within the moment that the supervisor and the start of Python take."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process.wait(timeout=5)
        if way := self._files.spoil(self._rng):
            self.done[f"index: {way}"] += 1
        self._files.keep_one()

    def _fill(self) -> None:
        """Let Redis have no room for a moment."""
        with self._stack.redis("ingest") as server:
            try:
                server.config_set("maxmemory", int(server.info("memory")["used_memory"]))
                self._pace.rest(self._rng.uniform(0.2, _LONGEST_FILL_S))
            finally:
                self._make_room(server)

    def _make_room(self, server: redis.Redis) -> None:
        while True:
            try:
                server.config_set("maxmemory", 0)
            except redis.RedisError:
                self._pace.rest(0.2)
            else:
                return


def _pause(process: psutil.Process, rng: random.Random, *, rest: Callable[[float], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
        try:
            rest(rng.uniform(0.5, _LONGEST_PAUSE_S))
        finally:
            process.resume()
