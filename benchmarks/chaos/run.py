"""One run: start a stack, put load and faults on it, let it come to rest, examine what is there."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from api_stub.pipeline_client import PipelineClient
from benchmarks.chaos.examination import Findings
from benchmarks.chaos.faults import OnKill, Tormentor
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.pace import Pace
from benchmarks.chaos.plan import Kind, Plan, Victim
from benchmarks.chaos.poison import Poisoner
from benchmarks.chaos.recovery import Recovery
from benchmarks.chaos.workload import Enqueuer, Producer
from benchmarks.running_stack import Stack, StackFailed, running


class Target(Protocol):
    """A pipeline that can be tormented."""

    name: str
    is_meant_to_lose: bool
    kinds: frozenset[Kind]
    module: tuple[str, ...]
    words: Mapping[str, str]

    def environment(self, home: Path) -> dict[str, str]:
        """Return its settings."""

    def enqueuer(self, stack: Stack) -> Enqueuer:
        """Return what hands over memories, for one thread."""

    def client(self, stack: Stack) -> PipelineClient | None:
        """Return what else can be done with them, `None`: nothing."""

    def wait_drained(self, stack: Stack, *, timeout_s: float) -> None:
        """Wait until nothing is under way any more. Raises StackFailed when time runs out."""

    def examine(self, stack: Stack, ledger: Ledger) -> Findings:
        """Examine what is there, and stop the stack."""


@dataclass
class Result:
    """What a run did and found."""

    plan: Plan
    name: str
    findings: Findings = field(default_factory=Findings)
    ledger: Ledger = field(default_factory=Ledger)
    faults: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[Victim, list[float]] = field(default_factory=dict)
    drained_s: float = 0.0
    wall_s: float = 0.0
    failure: str | None = None  # why the run did not get to its end
    kept: Path | None = None  # where the stack's files are

    @property
    def passed(self) -> bool:
        return self.failure is None and not self.findings.wrong


def run(plan: Plan, target: Target, *, keep: bool = False) -> Result:
    """Do what is planned. Whatever goes wrong is in the result; `keep` keeps the stack's files anyway."""
    home = Path(tempfile.mkdtemp(prefix="memory-chaos-"))
    home.chmod(0o711)
    result = Result(plan=plan, name=target.name)
    started = time.monotonic()
    try:
        with running(home, target.module, words=target.words, environment=target.environment(home)) as stack:
            _Run(plan, target, stack, result).go()
    except StackFailed as failure:
        result.failure = str(failure)
    result.wall_s = time.monotonic() - started
    if keep or result.failure or (result.findings.wrong and not target.is_meant_to_lose):
        result.kept = home
    else:
        shutil.rmtree(home, ignore_errors=True)
    return result


class _Run:
    def __init__(self, plan: Plan, target: Target, stack: Stack, result: Result) -> None:
        self._plan = plan
        self._target = target
        self._stack = stack
        self._result = result
        self._pace = Pace({victim: 0.5 / len(plan.faults[victim]) for victim in plan.main_victims})
        self._failures: list[BaseException] = []
        self._client = target.client(stack)
        self._recovery = Recovery(self._client, result.ledger) if self._client else None

    def go(self) -> None:
        producers = [self._producer(number) for number in range(self._plan.n_threads)]
        tormentors = [self._tormentor(victim) for victim in self._plan.faults]
        for thread in (*producers, *tormentors):
            thread.start()
        for thread in (*producers, *tormentors):
            thread.join()
        self._result.faults.update(
            {f"{t.victim} {kind}": n for t in tormentors for kind, n in t.done.items()}
        )
        if self._recovery:
            self._result.recovery_s = self._recovery.times_s()
        if self._failures:
            raise StackFailed(f"{type(self._failures[0]).__name__}: {self._failures[0]}") from self._failures[
                0
            ]
        at_rest = time.monotonic()
        self._target.wait_drained(self._stack, timeout_s=self._plan.drain_timeout_s)
        self._result.drained_s = time.monotonic() - at_rest
        self._result.findings = self._target.examine(self._stack, self._result.ledger)

    def _producer(self, number: int) -> Producer:
        return Producer(
            number,
            plan=self._plan,
            enqueuer=self._target.enqueuer(self._stack),
            client=self._client,
            poisoner=self._poisoner(number) if self._client else None,
            ledger=self._result.ledger,
            pace=self._pace,
            on_failure=self._fail,
        )

    def _poisoner(self, number: int) -> Poisoner:
        n_threads, n_poison = self._plan.n_threads, self._plan.n_poison
        return Poisoner(
            number,
            n_to_do=n_poison // n_threads + (number < n_poison % n_threads),
            stream=self._stack.redis("ingest"),
            ledger=self._result.ledger,
            rng=self._plan.chance(f"poison/{number}"),
        )

    def _tormentor(self, victim: Victim) -> Tormentor:
        nobody: OnKill = lambda _victim, _at: None  # noqa: E731 (it measures nothing)
        return Tormentor(
            victim,
            plan=self._plan,
            stack=self._stack,
            pace=self._pace,
            on_kill=self._recovery.measure if self._recovery else nobody,
            on_failure=self._fail,
        )

    def _fail(self, error: BaseException) -> None:
        self._failures.append(error)
        self._pace.abandon()
