"""From the indexer's death to its first answer: with a snapshot, and without one, from the rows alone.

The indexer is killed with SIGKILL. For the second case its index directory is emptied while nobody starts it
again. The time is until a search is answered: process, imports, model for queries and index together; and
until the index is whole, which the indexer notes in the database. The baseline is `faiss.read_index` of the
same snapshot's file, and nothing else. A rebuild's seconds are what it takes longer than that baseline:
without a snapshot less with one, plus the baseline.
"""

from __future__ import annotations

import argparse
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss

from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.corpus import LARGE
from benchmarks.rig.figures import medians, timed
from benchmarks.rig.filling import check_not_fuller, fill, n_held, vectors_file, wait_until_saved
from benchmarks.rig.stacks import Measured, paused, running_measured
from benchmarks.rig.waiting import NotInTime, say, wait_for
from memory.errors import SearchUnavailable

_ASK_FOR_S = 2.0
_ANSWERED_WITHIN_S = 900
_DEAD_WITHIN_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restart:
    answered_s: float  # from the start until a search was answered
    whole_s: float  # from the start until the index was loaded or rebuilt


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=1_000_000)
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a filled stack lives here, and stays")
    arguments = parser.parse_args()
    execute("restart", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    with running_measured("synthetic", home=arguments.keep, sqlite=arguments.sqlite) as measured:
        check_not_fuller(measured, arguments.memories)
        fill(measured, arguments.memories)
        n = n_held(measured)
        rounds = []
        for number in range(arguments.rounds):
            wait_until_saved(measured)
            bare_s, _ = timed(lambda: faiss.read_index(str(vectors_file(measured.stack.home))))
            loaded = _restart(report, measured, with_snapshot=True)
            rebuilt = _restart(report, measured, with_snapshot=False)
            rebuild_s = max(bare_s, rebuilt.whole_s - loaded.whole_s + bare_s)
            rounds.append(
                {
                    "first answer with a snapshot, s": loaded.answered_s,
                    "first answer without, s": rebuilt.answered_s,
                    "index whole with a snapshot, s": loaded.whole_s,
                    "index whole without, s": rebuilt.whole_s,
                    "rebuild, vectors/s": n / rebuild_s,
                    "baseline: bare faiss.read_index, s": bare_s,
                }
            )
            say(f"round {number + 1}: {loaded.answered_s:.1f} s, without a snapshot {rebuilt.answered_s:.1f}")
        report.figures |= {"memories": n, **medians(rounds)}
        measured.require_equal(report)


def _restart(report: Report, measured: Measured, *, with_snapshot: bool) -> _Restart:
    before = measured.epoch()
    with paused(measured.stack.process.pid):  # it would start another one at once
        _kill_indexer(measured)
        if not with_snapshot:
            index = measured.stack.home / "index"
            shutil.rmtree(index)
            index.mkdir(mode=0o700)
        started = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as beside:
        whole = beside.submit(_wait_until_whole, measured, before)
        n_hits = _first_answer(measured)
        answered_s = time.perf_counter() - started
        whole_s = whole.result() - started
    report.require(n_hits > 0, "the first answer after a restart was empty")
    return _Restart(answered_s=answered_s, whole_s=whole_s)


def _wait_until_whole(measured: Measured, before: int) -> float:
    """Return when the new owner had its index, in seconds of `time.perf_counter`."""
    wait_for(
        lambda: measured.epoch() > before,
        timeout_s=_ANSWERED_WITHIN_S,
        what="the indexer has its index again",
        pause_s=0.02,
    )
    return time.perf_counter()


def _kill_indexer(measured: Measured) -> None:
    process = measured.stack.wait_ready("indexer", not_pid=None)
    process.kill()
    wait_for(
        lambda: measured.stack.child("indexer", not_pid=None) is None,
        timeout_s=_DEAD_WITHIN_S,
        what="the indexer's death",
        pause_s=0.01,
    )


def _first_answer(measured: Measured) -> int:
    deadline = time.monotonic() + _ANSWERED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            return len(measured.client.search("What happened?", namespace=LARGE, timeout_s=_ASK_FOR_S))
        except SearchUnavailable:
            continue  # it is not there yet: ask again
    raise NotInTime(f"the indexer gave no answer within {_ANSWERED_WITHIN_S} s after its death")


if __name__ == "__main__":
    main()
