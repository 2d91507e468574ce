"""What a run is to do: the workload's size, and each victim's faults in their order, from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Victim = Literal["worker", "indexer", "redis", "postgres", "beat"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)

Kind = Literal[
    "kill",
    "pause",  # SIGSTOP for some seconds, then SIGCONT
    "corrupt",  # kill the indexer and spoil its files before it is back
    "fill",  # Redis takes no more memories for a moment
    "flush",  # the broker's database is emptied: every Celery message is gone
]

_MIX: dict[Victim, float] = {"worker": 0.38, "indexer": 0.3, "redis": 0.12, "postgres": 0.12, "beat": 0.08}
_CORRUPT_SHARE = 0.3  # of the indexer's kills
_OTHERS_SHARE = 0.1  # pauses for each kill of a worker or indexer; fills and flushes for each of any

Faults = dict[Victim, tuple[Kind, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Everything that is decided by chance is decided by `seed`."""

    seed: int
    n_memories: int
    faults: Faults
    sqlite: bool = False
    n_threads: int = 4
    n_embed_workers: int = 1
    n_poison: int = 8
    longest_rest_s: float = 0.5
    """Between a victim's being ready and its next fault."""
    drain_timeout_s: float = 240

    def chance(self, name: str) -> random.Random:
        """Return a stream of chance of its own: threads that take turns by chance do not share one."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def main_victims(self) -> list[Victim]:
        """Whose faults set the pace of all others, and of the workload: those with the most."""
        most = max(map(len, self.faults.values()), default=0)
        return [victim for victim, faults in self.faults.items() if 2 * len(faults) > most]


def mix(n_kills: int, *, can_die: Iterable[Victim]) -> dict[Victim, int]:
    """Spread kills over those that can die, by the usual weights."""
    weights = {victim: _MIX[victim] for victim in VICTIMS if victim in set(can_die)}
    total = sum(weights.values())
    kills = {victim: int(n_kills * weight / total) for victim, weight in weights.items()}
    first = next(iter(kills))
    kills[first] += n_kills - sum(kills.values())
    return kills


def plan_faults(
    seed: int, kills: dict[Victim, int], *, can: Iterable[Kind], only_kills: bool = False
) -> Faults:
    """Return each victim's faults: its kills, shuffled with the faults that go along with them.

    Args:
        seed: of the order.
        kills: how many of each victim, exactly. A kill that corrupts is one of them.
        can: the kinds that this stack can suffer.
        only_kills: nothing but kills.

    """
    rng = random.Random(f"{seed}/plan")
    able: set[Kind] = {"kill"} if only_kills else set(can)
    faults: Faults = {}
    for victim, n_kills in kills.items():
        others = [kind for kind in _accompanying(victim, n_kills) if kind in able]
        n_corrupt = int(n_kills * _CORRUPT_SHARE) if victim == "indexer" and "corrupt" in able else 0
        chosen: list[Kind] = [*_times(n_corrupt, "corrupt"), *_times(n_kills - n_corrupt, "kill"), *others]
        rng.shuffle(chosen)
        if chosen:
            faults[victim] = tuple(chosen)
    return faults


def _accompanying(victim: Victim, n_kills: int) -> list[Kind]:
    n = -(-n_kills // int(1 / _OTHERS_SHARE))
    if victim in {"worker", "indexer"}:
        return _times(n, "pause")
    if victim == "redis":
        return [*_times(-(-n_kills // 3), "fill"), *_times(-(-n_kills // 2), "flush")]
    return []


def _times(n: int, kind: Kind) -> list[Kind]:
    return [kind] * n
