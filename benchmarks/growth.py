"""What one more memory costs while the stack grows: enqueue to searchable, at 10,000, 100,000, 1,000,000.

The model costs nothing (its vectors look real: benchmarks/synthetic_embedder.py), so that what is measured
is all but the model. At each size, rounds of new memories are timed, half of them below the size and half
above; the filling in between is timed too, snapshots and all. The baseline is the cost at the first size.
With `--keep DIR` the filled stack stays there, for `search`, `restart` and `memory`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rig.command import NotPossible, Report, command, execute, positive, sizes
from benchmarks.rig.figures import rounded, timed
from benchmarks.rig.filling import Filled, fill, index_bytes, n_held, wait_until_saved
from benchmarks.rig.plots import Picture, check_can_plot, draw
from benchmarks.rig.processes import processor_s, resident_mb, used_ms
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.waiting import say

_STEP, _STEP_SHARE = 5_000, 0.02


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--sizes", type=sizes, default=sizes("10000,100000,1000000"), help="with commas")
    parser.add_argument("--memories", type=positive, default=2000, help="of one round")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="fill this directory, and leave it filled")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the cost over the size")
    arguments = parser.parse_args()
    execute("growth", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    check_can_plot(arguments.plot)
    course: list[tuple[int, float]] = []
    with running_measured("synthetic", home=arguments.keep, sqlite=arguments.sqlite) as measured:
        if held := n_held(measured):
            raise NotPossible(
                f"--keep {arguments.keep}: holds {held:,} memories already; growth starts empty"
            )
        fill(measured, arguments.memories)  # the first ones meet cold caches
        for size in arguments.sizes:
            report.figures[f"{size:,}"] = _at(measured, size, arguments, course)
        measured.require_equal(report)
    first = report.figures[f"{arguments.sizes[0]:,}"]["s for 1,000 memories"]
    for size in arguments.sizes:
        figures = report.figures[f"{size:,}"]
        figures["÷ the first"] = rounded(figures["s for 1,000 memories"] / first)
    if arguments.plot:
        draw(_picture(report, arguments.sizes, course), arguments.plot)


def _at(measured: Measured, size: int, arguments: argparse.Namespace, course: list[Filled]) -> dict[str, Any]:
    n_added = arguments.memories * arguments.rounds
    start = max(n_held(measured), size - n_added // 2)
    say(f"filling up to {start:,}")
    filled = fill(measured, start)
    course.extend(_course(filled))
    before, seconds = processor_s(measured.stack), []
    for number in range(arguments.rounds):
        held = start + number * arguments.memories
        seconds.append(timed(lambda n=held: fill(measured, n + arguments.memories, start=n))[0])
    used = used_ms(before, processor_s(measured.stack), n=n_added)
    wait_until_saved(measured)
    return {
        "s for 1,000 memories": rounded(1000 * statistics.median(seconds) / arguments.memories),
        **_filling(filled),
        "processor ms for 1,000 memories": {"all": round(sum(used.values()), 1), **used},
        "index, bytes a vector": round(index_bytes(measured.stack.home) / n_held(measured)),
        "resident": resident_mb(measured.stack),
    }


def _filling(course: Sequence[Filled]) -> dict[str, float]:
    n = course[-1].n - course[0].n
    if n <= 0:
        return {}
    return {"s for 1,000 memories while filling": rounded(1000 * (course[-1].at_s - course[0].at_s) / n)}


def _course(filled: Sequence[Filled]) -> list[tuple[int, float]]:
    """Return (memories, seconds for 1,000 more) over steps long enough to be more than noise."""
    points, last = [], filled[0]
    for moment in filled[1:]:
        n = moment.n - last.n
        if n >= max(_STEP, _STEP_SHARE * moment.n):
            points.append((moment.n, 1000 * (moment.at_s - last.at_s) / n))
            last = moment
    return points


def _picture(report: Report, at: Sequence[int], course: Sequence[tuple[int, float]]) -> Picture:
    return Picture(
        title="Enqueue to searchable with a model that costs nothing",
        y="seconds for 1,000 memories",
        lines={"median of the rounds": [(n, report.figures[f"{n:,}"]["s for 1,000 memories"]) for n in at]},
        course=course,
    )


if __name__ == "__main__":
    main()
