"""The result in words: a table for people, a mapping for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.chaos.ledger import Ending
from benchmarks.chaos.plan import VICTIMS
from benchmarks.chaos.run import Result


def as_json(result: Result, *, command: str) -> dict[str, Any]:
    """Return a JSON-ready mapping of everything."""
    findings = result.findings
    return {
        "variant": result.name,
        "passed": result.passed,
        "failure": result.failure,
        "seed": result.plan.seed,
        "command": command,
        "database": "sqlite" if result.plan.sqlite else "postgres",
        "kills": {victim: n for victim in VICTIMS if (n := _n_kills(result, victim))},
        "faults": dict(sorted(result.faults.items())),
        "memories": len(result.ledger.memories),
        "operations": _operations(result),
        "retries": result.ledger.n_retries,
        "acknowledged": findings.acknowledged,
        "indeterminate_found": findings.indeterminate_found,
        "indeterminate_missing": findings.indeterminate_missing,
        "dead_letters": findings.dead_letters,
        "poison": findings.poison,
        "lost": findings.lost,
        "duplicated": findings.duplicated,
        "resurrected": findings.resurrected,
        "drifted": findings.drifted,
        "unexpected": findings.unexpected,
        "examples": findings.examples,
        "recovery_s": {victim: _quantiles(times) for victim, times in result.recovery_s.items()},
        "drained_s": round(result.drained_s, 1),
        "wall_s": round(result.wall_s, 1),
        "kept": str(result.kept) if result.kept else None,
    }


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table, one column a run."""
    names = [*_ROWS, *(f"recovery after a kill of {v}, p50 / p99 / max, s" for v in VICTIMS if v != "beat")]
    columns = [[*_column(result), *_recoveries(result)] for result in results]
    rows = [["", *(result["variant"] for result in results)], ["---"] * (len(results) + 1)]
    rows += [[name, *(column[n] for column in columns)] for n, name in enumerate(names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_ROWS = (
    "database",
    "kill -9: " + " / ".join(VICTIMS),
    "other faults",
    "memories enqueued, of them acknowledged",
    "indeterminate: found / not found",
    "updates / deletes / cleanups / searches acknowledged",
    "**lost**",
    "**duplicated**",
    "**resurrected**",
    "**drifted**",
    "unexpected rows, dead letters or errors",
    "dead letters, of them for poison",
    "drained after the last fault, s",
    "the whole run, s",
)


def _column(result: dict[str, Any]) -> list[str]:
    if result["failure"]:
        return [f"failed: {result['failure'].splitlines()[0]}", *["-"] * (len(_ROWS) - 1)]
    done = result["operations"]
    return [
        result["database"],
        " / ".join(str(result["kills"].get(victim, 0)) for victim in VICTIMS),
        _other_faults(result["faults"]),
        f"{result['memories']:,}, {result['acknowledged']:,}",
        f"{result['indeterminate_found']:,} / {result['indeterminate_missing']:,}",
        " / ".join(
            f"{done[name]['acknowledged']:,}" if name in done else "-"
            for name in ("update", "delete", "cleanup", "search")
        ),
        *(f"**{result[name]:,}**" for name in ("lost", "duplicated", "resurrected", "drifted")),
        f"{result['unexpected']:,}",
        f"{result['dead_letters']}, {result['poison']}",
        f"{result['drained_s']}",
        f"{result['wall_s']:.0f}",
    ]


def _recoveries(result: dict[str, Any]) -> list[str]:
    return [_shown(result["recovery_s"].get(victim)) for victim in VICTIMS if victim != "beat"]


def _shown(quantiles: dict[str, float] | None) -> str:
    return f"{quantiles['p50']} / {quantiles['p99']} / {quantiles['max']}" if quantiles else "-"


def _other_faults(faults: dict[str, int]) -> str:
    parts = {
        " pause": "paused",
        " index: ": "index spoilt",
        " fill": "Redis full",
        " flush": "broker emptied",
    }
    counts = {said: sum(n for name, n in faults.items() if part in name) for part, said in parts.items()}
    return ", ".join(f"{n} {said}" for said, n in counts.items() if n) or "-"


def _n_kills(result: Result, victim: str) -> int:
    return result.faults[f"{victim} kill"] + result.faults[f"{victim} corrupt"]


def _operations(result: Result) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (name, ending), n in sorted(result.ledger.operations.items()):
        found.setdefault(name, {e.value: 0 for e in Ending})[ending.value] = n
    return found


def _quantiles(times: list[float]) -> dict[str, float]:
    """Return quantiles of ascending times."""

    def at(share: float) -> float:
        return round(times[min(len(times) - 1, math.ceil(share * len(times)) - 1)], 2)

    return {"n": len(times), "p50": at(0.5), "p99": at(0.99), "max": round(times[-1], 2)}
