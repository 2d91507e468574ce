"""What the processes hold in memory: the idle product, and stacks of 10,000, 100,000 and 1,000,000 memories.

RSS counts a page in every process that maps it, PSS shares it among them. The idle stack is `memory up` as it
is; the filled ones have embed workers without a model, so `embed-N` is to be read off the idle one. The
baseline of a vector is its 384 float32 numbers. Sizes do not differ from round to round: `--rounds` is of no
account.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.rig.command import Report, command, execute, sizes
from benchmarks.rig.filling import check_not_fuller, fill, index_bytes, n_held, wait_until_saved
from benchmarks.rig.processes import resident_mb
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.texts import queries

_BARE_BYTES = 384 * 4
_N_SEARCHES = 20


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--sizes", type=sizes, default=sizes("10000,100000,1000000"), help="with commas")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="the largest stack lives here, and stays")
    arguments = parser.parse_args()
    execute("memory", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    with running_measured("real") as measured:
        measured.client.wait(measured.client.enqueue_many(queries(100)), timeout_s=120)
        report.figures["idle"] = _resident(measured)
    idle_mb = report.figures["idle"]["resident"]["indexer"]["RSS MB"]
    for size in arguments.sizes:
        home = arguments.keep if size == arguments.sizes[-1] else None
        with running_measured("synthetic", home=home) as measured:
            check_not_fuller(measured, size)
            fill(measured, size)
            wait_until_saved(measured)
            figures = _resident(measured)
            held, indexer = n_held(measured), figures["resident"]["indexer"]
            figures["index on disk, bytes a vector"] = round(index_bytes(measured.stack.home) / held)
            figures["indexer over idle, bytes a vector"] = round((indexer["RSS MB"] - idle_mb) * 2**20 / held)
            figures["baseline: a bare float32 vector, bytes"] = _BARE_BYTES
            report.figures[f"{held:,}"] = figures
            measured.require_equal(report)


def _resident(measured: Measured) -> dict[str, Any]:
    for query in queries(_N_SEARCHES):
        measured.client.search(query, namespace="corpus")
    by_process = resident_mb(measured.stack)
    pss = sum(held["PSS MB"] for held in by_process.values())
    return {"all processes, PSS MB": pss, "resident": by_process}


if __name__ == "__main__":
    main()
