"""Chaos: kill -9, pauses, a full Redis and spoilt index files under load, and what became of each memory.

    ./run python -m benchmarks.chaos --seed 1 --memories 30000 --kills 60

It runs a stack of its own, with a model that costs nothing (`benchmarks.null_stack`: the product's processes
and supervisor), enqueues, revises, deletes, cleans up and searches meanwhile, and counts at the end.

Exit code: 0 if nothing is lost, duplicated, resurrected, drifted or unexplained; 1 if something is; 3 if the
run did not come to its end: a process did not come back, or what waited was not stored in time.

`--variant naive-celery` and `--variant naive-cursor` put two usual designs through the same harness, to prove
that it can find losses; see `naive/`. `--compare` runs all three.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.chaos.naive.celery_variant import NaiveCelery
from benchmarks.chaos.naive.cursor_variant import NaiveCursor
from benchmarks.chaos.plan import VICTIMS, Kind, Plan, Victim, mix, plan_faults
from benchmarks.chaos.product import Everkept
from benchmarks.chaos.run import Target, run
from benchmarks.chaos.table import as_json, as_table
from memory.logs import log_as_a_library

_TARGETS: dict[str, Any] = {
    "everkept": Everkept,
    "naive-celery": NaiveCelery,
    "naive-cursor": NaiveCursor,
}
_NOT_THROUGH = 3


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    log_as_a_library()  # what a client says of each outage is no news here
    names = list(_TARGETS) if arguments.compare else [arguments.variant]
    results = [_run(name, arguments, argv) for name in names]
    if arguments.json:
        for result in results:
            print(json.dumps(result))
    else:
        print(as_table(results))
    for result in results:
        _say_what_is_wrong(result)
    return _exit_code(results)


def _run(name: str, arguments: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    command = shlex.join(["./run", "python", "-m", "benchmarks.chaos", *argv])
    print(f"{name}: seed {arguments.seed}; again: {command}", file=sys.stderr, flush=True)
    plan = _plan(_TARGETS[name], arguments)
    target: Target = _TARGETS[name](plan)
    return as_json(run(plan, target, keep=arguments.keep), command=command)


def _plan(target: Any, arguments: argparse.Namespace) -> Plan:
    can_die: tuple[Victim, ...] = target.victims(sqlite=arguments.sqlite)
    exact = {victim: getattr(arguments, f"kills_{victim}") for victim in VICTIMS}
    kills: dict[Victim, int] = dict(mix(arguments.kills, can_die=can_die)) if arguments.kills else {}
    kills |= {victim: n for victim, n in exact.items() if n is not None and victim in can_die}
    kinds: frozenset[Kind] = target.kinds
    return Plan(
        seed=arguments.seed,
        n_memories=arguments.memories,
        faults=plan_faults(arguments.seed, kills, can=kinds, only_kills=arguments.only_kills),
        sqlite=arguments.sqlite,
        n_threads=arguments.threads,
        n_embed_workers=arguments.embed_workers,
        n_poison=arguments.poison,
    )


def _say_what_is_wrong(result: dict[str, Any]) -> None:
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)  # noqa: E731
    if result["passed"]:
        say(f"{result['variant']}: passed")
        return
    say(f"{result['variant']}: NOT passed; again: {result['command']}; files: {result['kept']}")
    for line in filter(None, (result["failure"], *result["examples"])):
        say(f"  {line}")


def _exit_code(results: list[dict[str, Any]]) -> int:
    if any(result["failure"] for result in results):
        return _NOT_THROUGH
    if len(results) == 1:
        return 0 if results[0]["passed"] else 1
    as_it_should = [r["passed"] if r["variant"] == "everkept" else r["lost"] > 0 for r in results]
    return 0 if all(as_it_should) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memories", type=int, default=30_000)
    parser.add_argument("--kills", type=int, default=0, help="of all victims, in the usual mix")
    for victim in VICTIMS:
        parser.add_argument(f"--kills-{victim}", type=int, help="exactly so many of this one")
    parser.add_argument(
        "--only-kills", action="store_true", help="no pauses, no full Redis, nothing corrupted"
    )
    parser.add_argument("--variant", choices=_TARGETS, default="everkept")
    parser.add_argument("--compare", action="store_true", help="all variants, one after the other")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    parser.add_argument("--embed-workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=4, help="producers")
    parser.add_argument("--poison", type=int, default=8, help="entries that can never be stored")
    parser.add_argument("--keep", action="store_true", help="keep the files of a run that passed, too")
    parser.add_argument("--json", action="store_true", help="one line of JSON a run, instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
