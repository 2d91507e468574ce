"""Searches through the query task, at 10,000, 100,000 and 1,000,000 memories, with and without filters.

Each search is `PipelineClient.search` for the best 10: client, Redis, the indexer with the real model for the
query, index, rows from the database; hybrid, which is the default, and by vectors alone. Memories have
vectors that look real and were put in fast (benchmarks/synthetic_embedder.py); the queries are sentences that
are in no memory. Every query is asked once, except where a repeated one is measured. Recall, of vectors
alone, is against an exact search over the stored float32 vectors. The baseline, in turn with them, is the
model and a flat FAISS index in one process, on one thread, unfiltered. At the end, a repeated search is asked
while memories are added and a snapshot is saved.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss

from benchmarks.rig.command import Report, command, execute, positive, sizes
from benchmarks.rig.corpus import FILTERS, LARGE, SMALL, Filter, drafts
from benchmarks.rig.figures import in_ms, rounded, timed
from benchmarks.rig.filling import check_not_fuller, fill, n_held, wait_until_saved
from benchmarks.rig.plots import Picture, check_can_plot, draw
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.stored import StoredVectors, overlap, read_vectors
from benchmarks.rig.texts import queries
from benchmarks.rig.waiting import say
from indexer.app import load_model
from memory.embedder import Embedder
from memory.settings import read_settings

_K = 10
_MODES = ("hybrid", "vector")
_REPEATED = "Where is the spare key?"
_ADDED_AT_ONCE = 100
_ADDED_PER_S = 500
_BUSY_AT_LEAST_S = 10


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--sizes", type=sizes, default=sizes("10000,100000,1000000"), help="with commas")
    parser.add_argument("--queries", type=positive, default=40, help="of one round, for each filter")
    parser.add_argument(
        "--busy-s", type=int, default=90, help="longest to search while adding; 0: not at all"
    )
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="the largest stack lives here, and stays")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the latency over the size")
    arguments = parser.parse_args()
    execute("search", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    check_can_plot(arguments.plot)
    queries(
        arguments.queries * arguments.rounds * len(FILTERS) * len(_MODES)
    )  # refuses too many before anything starts
    model = load_model(read_settings())
    for size in arguments.sizes:
        home = arguments.keep if size == arguments.sizes[-1] else None
        with running_measured("synthetic", home=home, sqlite=arguments.sqlite) as measured:
            check_not_fuller(measured, size)
            fill(measured, size)
            wait_until_saved(measured)
            figures: dict[str, Any] = {"memories": n_held(measured)}
            report.figures[f"{size:,}"] = figures
            _quiet(measured, model, figures, arguments)
            if arguments.busy_s:
                figures["while adding and saving, repeated"] = _busy(report, measured, arguments.busy_s)
            measured.require_equal(report)
    if arguments.plot:
        draw(_picture(report, arguments.sizes), arguments.plot)


def _quiet(
    measured: Measured, model: Embedder, figures: dict[str, Any], arguments: argparse.Namespace
) -> None:
    url = measured.stack.settings().database_url
    stored = read_vectors(url, [LARGE, SMALL], n=figures["memories"])
    flat = faiss.IndexFlatIP(stored.vectors.shape[1])
    flat.add(stored.vectors)
    fresh = iter(queries(arguments.queries * arguments.rounds * len(FILTERS) * len(_MODES)))
    asked: dict[str, list[str]] = {f.name: [] for f in FILTERS}
    found: dict[str, list[list[str]]] = {f.name: [] for f in FILTERS}
    seconds: dict[tuple[str, str], list[float]] = {(f.name, mode): [] for f in FILTERS for mode in _MODES}
    repeated: list[float] = []
    bare: list[float] = []
    _search(measured, _REPEATED, FILTERS[0])
    for number in range(arguments.rounds):
        for chosen in FILTERS:
            for mode in _MODES:
                for text in _some(fresh, arguments.queries):
                    taken_s, uids = timed(lambda t=text, f=chosen, m=mode: _search(measured, t, f, mode=m))
                    seconds[chosen.name, mode].append(taken_s)
                    if mode == "vector":
                        asked[chosen.name].append(text)
                        found[chosen.name].append(uids)
        repeated += _repeatedly(measured, arguments.queries)
        bare += _bare(model, flat, asked["all"][-arguments.queries :])
        say(f"round {number + 1}: p50 {in_ms(seconds['all', 'hybrid'])['p50 ms']} ms unfiltered")
    for chosen in FILTERS:
        recall = _recall(stored, model, chosen, asked[chosen.name], found[chosen.name])
        figures[chosen.name] = {
            "hybrid": in_ms(seconds[chosen.name, "hybrid"]),
            "vector": {**in_ms(seconds[chosen.name, "vector"]), "recall@10": recall},
        }
    figures["all, repeated"] = in_ms(repeated)
    figures["baseline: model and flat FAISS"] = in_ms(bare)


def _some(texts: Iterator[str], n: int) -> list[str]:
    return [next(texts) for _ in range(n)]


def _search(measured: Measured, text: str, chosen: Filter, *, mode: str = "hybrid") -> list[str]:
    hits = measured.client.search(
        text, namespace=chosen.namespace, memory_types=chosen.memory_type, limit=_K, mode=mode
    )
    return [hit.memory.uid for hit in hits]


def _repeatedly(measured: Measured, n: int) -> list[float]:
    return [timed(lambda: _search(measured, _REPEATED, FILTERS[0]))[0] for _ in range(n)]


def _bare(model: Embedder, flat: Any, texts: Sequence[str]) -> list[float]:
    faiss.omp_set_num_threads(1)
    return [timed(lambda t=text: flat.search(model.encode([t]), _K))[0] for text in texts]


def _recall(
    stored: StoredVectors, model: Embedder, chosen: Filter, asked: list[str], found: list[list[str]]
) -> float:
    """Return the share of the true 10 nearest that was found; of all, where fewer than 10 match."""
    places = stored.chosen(namespace=chosen.namespace, memory_type=chosen.memory_type)
    right = stored.nearest(model.encode(asked), places, k=_K)
    return rounded(overlap(found, right))


def _busy(report: Report, measured: Measured, longest_s: int) -> dict[str, Any]:
    """Search while memories are added, until a snapshot was saved meanwhile or the time is over."""
    say("searching while memories are added, until a snapshot is saved")
    stop = threading.Event()
    adding = threading.Thread(target=_add, args=(measured, stop))
    before = measured.snapshot_seq()
    started = looked = time.monotonic()
    seconds, saved = [], False
    adding.start()
    try:
        while time.monotonic() - started < longest_s:
            seconds += _repeatedly(measured, 1)
            if time.monotonic() - looked > 1:
                looked = time.monotonic()
                saved = saved or measured.snapshot_seq() != before
                if saved and looked - started > _BUSY_AT_LEAST_S:
                    break
    finally:
        stop.set()
        adding.join()
    measured.wait_until_searchable(n=1, timeout_s=300)
    report.require(saved, f"no snapshot was saved within {longest_s} s of adding: take a larger --busy-s")
    return {**in_ms(seconds), "added meanwhile, memories/s": _ADDED_PER_S, "a snapshot was saved": saved}


def _add(measured: Measured, stop: threading.Event) -> None:
    place = n_held(measured)
    while not stop.wait(_ADDED_AT_ONCE / _ADDED_PER_S):
        measured.client.enqueue_many(drafts(place, place + _ADDED_AT_ONCE))
        place += _ADDED_AT_ONCE


def _picture(report: Report, at: Sequence[int]) -> Picture:
    lines = {f"{f.name}, {mode}": (f.name, mode) for f in FILTERS for mode in _MODES}
    plain = ("all, repeated", "baseline: model and flat FAISS")
    return Picture(
        title="Search through the query task, p50",
        y="milliseconds",
        lines={
            name: [(n, report.figures[f"{n:,}"][chosen][mode]["p50 ms"]) for n in at]
            for name, (chosen, mode) in lines.items()
        }
        | {name: [(n, report.figures[f"{n:,}"][name]["p50 ms"]) for n in at] for name in plain},
    )


if __name__ == "__main__":
    main()
