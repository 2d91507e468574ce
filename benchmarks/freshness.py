"""How soon one memory is searchable: while nothing else happens, and behind a bulk import.

`wait` is from before `enqueue()` until `client.wait` says searchable; `search` until a search finds it. The
baseline is the model alone over the same single texts, which a memory needs at the least. Behind a backlog
only `wait` is measured, until the time is over or the backlog is gone. With `--null` the model costs nothing.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import in_ms, timed
from benchmarks.rig.stacks import Measured, Model, running_measured
from benchmarks.rig.texts import sample_texts
from benchmarks.rig.waiting import say, wait_for
from indexer.app import load_model
from memory.models import MemoryState
from memory.settings import read_settings

_FEWEST = 20
_FRESH = "fresh"
_PAUSE_S = 0.1  # between two memories: nobody types faster
_TIMEOUT_S = 120


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--singles", type=positive, default=40, help="of one round, of each kind")
    parser.add_argument("--backlog", type=positive, default=100_000, help="memories of the bulk import")
    parser.add_argument("--behind-s", type=positive, default=60, help="how long to measure behind it")
    parser.add_argument("--null", action="store_true", help="with a model that costs nothing")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    arguments = parser.parse_args()
    execute("freshness", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    embed = None if arguments.null else load_model(read_settings()).encode
    model: Model = "null" if arguments.null else "real"
    with running_measured(model, sqlite=arguments.sqlite) as measured:
        report.figures["model"] = model
        _idle(report, measured, embed, arguments)
        measured.require_equal(report)
        _behind(report, measured, arguments)


def _idle(report: Report, measured: Measured, embed: Any, arguments: argparse.Namespace) -> None:
    waits: list[float] = []
    found: list[float] = []
    alone: list[float] = []
    for number in range(arguments.rounds):
        for i in range(arguments.singles):
            text = f"A fresh thought, number {i} of round {number}, on nothing in particular"
            waits.append(timed(lambda t=text: _until_waited(report, measured, t))[0])
            found.append(timed(lambda t=text: _until_found(measured, f"{t}, again"))[0])
            if embed:
                alone.append(timed(lambda t=text: embed([t]))[0])
            time.sleep(_PAUSE_S)
        say(f"round {number + 1} of {arguments.rounds} while nothing else happens")
    report.figures["idle, wait"] = in_ms(waits)
    report.figures["idle, search"] = in_ms(found)
    if alone:
        report.figures["baseline: the model alone, one text"] = in_ms(alone)


def _behind(report: Report, measured: Measured, arguments: argparse.Namespace) -> None:
    say(f"a bulk import of {arguments.backlog:,}")
    drafts = [{"content": text, "namespace": "bulk"} for text in sample_texts(arguments.backlog)]
    measured.client.enqueue_many(drafts)
    backlog = {"at first": measured.vitals().waiting_bulk}
    waits: list[float] = []
    deadline = time.monotonic() + arguments.behind_s
    while time.monotonic() < deadline:
        wait_s, _ = timed(lambda: _until_waited(report, measured, f"A word in between, number {len(waits)}"))
        left = measured.vitals().waiting_bulk
        if not left:
            break
        waits.append(wait_s)
        backlog["at the end"] = left
        time.sleep(_PAUSE_S)
    report.require(
        len(waits) >= _FEWEST,
        f"only {len(waits)} memories became searchable while there was a backlog: "
        "take a larger --backlog, or a longer --behind-s",
    )
    report.figures["backlog"] = backlog
    if waits:
        report.figures["behind the backlog, wait"] = in_ms(waits)


def _until_waited(report: Report, measured: Measured, text: str) -> None:
    receipt = measured.client.enqueue(text, namespace=_FRESH)
    outcome = measured.client.wait(receipt, timeout_s=_TIMEOUT_S)
    report.require(outcome.state is MemoryState.SEARCHABLE, f"{text!r} is {outcome.state}")


def _until_found(measured: Measured, text: str) -> None:
    receipt = measured.client.enqueue(text, namespace=_FRESH)

    def is_found() -> bool:
        hits = measured.client.search(text, namespace=_FRESH, limit=3)
        return any(hit.memory.uid == receipt.uid for hit in hits)

    wait_for(is_found, timeout_s=_TIMEOUT_S, what=f"a search finds {text!r}", pause_s=0.001)


if __name__ == "__main__":
    main()
