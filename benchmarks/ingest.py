"""End to end with the real model, from a bulk enqueue until all is searchable, against the floor.

The floor is `SentenceTransformer.encode` (batches of 32, float32, all threads), a flat FAISS index and SQLite
(benchmarks/rig/floor.py), over the same texts, in turn with the product. Nobody's start is timed. Each engine
has a stack of its own (`memory up` with its own number of workers). Beside the speed: how far the vectors are
from the floor's, and whether the searches find the same. What is not embedding is measured by a stack with a
model that costs nothing: its processor time for a memory, over that of the ingest.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import medians, rounded, timed
from benchmarks.rig.floor import Floor
from benchmarks.rig.processes import processes, processor_s, used_ms
from benchmarks.rig.question_sets import Question, read_question_set
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.stored import overlap, read_vectors
from benchmarks.rig.texts import queries, sample_texts
from benchmarks.rig.waiting import say
from memory.models import MemoryState

_ENGINES = ("torch", "openvino")
_PRECISIONS = ("float32", "bfloat16", "float16", "int8")
_LONGEST_INGEST_S = 1800
_N_NULL = 10_000
_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is ingested, by (group, uid): a search is within its group. And what is asked."""

    keys: list[tuple[str, str]]
    texts: list[str]
    questions: list[Question]

    def places(self, group: str) -> Any:
        return np.array([i for i, key in enumerate(self.keys) if key[0] == group])


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=2000, help="of one ingest, of the sample")
    parser.add_argument("--locomo", type=Path, metavar="DIR", help="LoCoMo's files instead of the sample")
    parser.add_argument(
        "--engines",
        type=_engines,
        default=_engines("default"),
        help=f"with commas: default, or of {', '.join((*_ENGINES, *_PRECISIONS))}; two with a colon between",
    )
    parser.add_argument("--searches", type=positive, default=200, help="for the agreement")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    arguments = parser.parse_args()
    execute("ingest", arguments, lambda report: _measure(report, arguments))


def _engines(text: str) -> dict[str, dict[str, str]]:
    """Return each engine's settings; empty ones keep ours away."""
    found = {}
    for name in text.split(","):
        settings = {"EMBEDDING_ENGINE": "", "EMBEDDING_PRECISION": ""}
        for part in name.split(":"):
            if part in _ENGINES:
                settings["EMBEDDING_ENGINE"] = part
            elif part in _PRECISIONS:
                settings["EMBEDDING_PRECISION"] = part
            elif part != "default":
                raise argparse.ArgumentTypeError(f"{part}: no engine and no precision")
        found[name] = settings
    return found


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    work = _work(report, arguments)
    floor = Floor()
    for name, settings in arguments.engines.items():
        say(f"engine {name}")
        with running_measured("real", sqlite=arguments.sqlite, environment=settings) as measured:
            figures: dict[str, Any] = {}
            report.figures[name] = figures
            _measure_engine(report, measured, figures, work, floor, arguments)
    nothing_ms = _without_the_model(arguments)
    report.figures["processor ms for 1,000 memories without the model"] = nothing_ms
    for name in arguments.engines:
        whole_ms = report.figures[name]["processor ms for 1,000 memories"]["all"]
        report.figures[name]["everything but embedding, share of processor time"] = rounded(
            nothing_ms / whole_ms
        )


def _work(report: Report, arguments: argparse.Namespace) -> _Work:
    if arguments.locomo is None:
        texts = sample_texts(arguments.memories)
        asked = [
            Question(conversation="sample", text=q, evidence=frozenset()) for q in queries(arguments.searches)
        ]
        report.figures["texts"] = f"{len(texts):,} of the sample; only the first 397 are not near copies"
        return _Work(keys=[("sample", str(i)) for i in range(len(texts))], texts=texts, questions=asked)
    found = read_question_set(arguments.locomo)
    report.figures["texts"] = f"{len(found.turns):,} turns of LoCoMo, with {len(found.questions)} questions"
    report.figures["evidence that names no turn"] = found.n_dropped
    return _Work(
        keys=[*found.turns], texts=[turn.line for turn in found.turns.values()], questions=found.questions
    )


def _measure_engine(
    report: Report,
    measured: Measured,
    figures: dict[str, Any],
    work: _Work,
    floor: Floor,
    arguments: argparse.Namespace,
) -> None:
    warm = _Work(keys=work.keys[:300], texts=work.texts[:300], questions=[])
    _ingest(report, measured, warm, "warm", Counter())
    n, rounds, used, vectors = len(work.texts), [], Counter[str](), None
    for number in range(arguments.rounds):
        floor_first = number % 2 == 0
        if floor_first:
            floor_s, vectors = timed(lambda: floor.ingest(work.texts))
        ours_s = _ingest(report, measured, work, f"round {number}", used)
        if not floor_first:
            floor_s, vectors = timed(lambda: floor.ingest(work.texts))
        rounds.append({"memories/s": n / ours_s, "floor, texts/s": n / floor_s, "÷ floor": floor_s / ours_s})
        say(f"round {number + 1}: {n / ours_s:.0f} memories/s, {floor_s / ours_s:.2f} times the floor")
    figures |= medians(rounds)
    figures["embed workers"] = sum(name.startswith("embed-") for name in processes(measured.stack))
    by_process = {name: round(ms / arguments.rounds, 1) for name, ms in used.items()}
    figures["processor ms for 1,000 memories"] = {"all": rounded(sum(by_process.values())), **by_process}
    figures |= _quality(measured, work, floor, vectors, last=f"round {arguments.rounds - 1}")
    measured.require_equal(report)


def _ingest(report: Report, measured: Measured, work: _Work, name: str, used: Counter[str]) -> float:
    """Return the seconds from before the bulk enqueue until all is searchable; note the processor time."""
    drafts = [
        {"content": text, "namespace": f"{name} {group}", "uid": uid}
        for (group, uid), text in zip(work.keys, work.texts, strict=True)
    ]
    before, started = processor_s(measured.stack), time.perf_counter()
    receipts = measured.client.enqueue_many(drafts)
    measured.wait_until_searchable(n=len(drafts), timeout_s=_LONGEST_INGEST_S)
    taken_s = time.perf_counter() - started
    used.update(used_ms(before, processor_s(measured.stack), n=len(drafts)))
    states = {outcome.state for outcome in measured.client.outcomes(receipts.receipts)}
    report.require(states == {MemoryState.SEARCHABLE}, f"{name}: memories are {sorted(states)}")
    report.require(len(receipts) == len(drafts), f"{name}: {len(receipts.rejected)} were rejected")
    return taken_s


def _quality(measured: Measured, work: _Work, floor: Floor, exact: Any, *, last: str) -> dict[str, Any]:
    """Compare what was stored in the last round with the floor's vectors, and what is found with them."""
    groups = sorted({group for group, _ in work.keys})
    url = measured.stack.settings().database_url
    stored = read_vectors(url, [f"{last} {group}" for group in groups], n=len(work.texts))
    place = {
        (str(n).removeprefix(f"{last} "), str(u)): i
        for i, (n, u) in enumerate(zip(stored.namespaces, stored.uids, strict=True))
    }
    mine = stored.vectors[[place[key] for key in work.keys]]
    cosines = np.einsum("ij,ij->i", mine.astype(np.float64), exact.astype(np.float64))
    say("searching for the agreement")
    ours = [_found(measured, question, last) for question in work.questions]
    theirs = _found_by_floor(floor, exact, work)
    figures: dict[str, Any] = {
        "cosine with the floor's vectors, mean": round(float(cosines.mean()), 6),
        "cosine with the floor's vectors, least": round(float(cosines.min()), 6),
        "first 10 as the floor's": rounded(overlap(ours, theirs)),
    }
    if any(question.evidence for question in work.questions):
        figures["evidence in the first 10"] = _evidence(ours, work.questions)
        figures["evidence in the first 10, floor"] = _evidence(theirs, work.questions)
    return figures


def _found(measured: Measured, question: Question, last: str) -> list[str]:
    hits = measured.client.search(
        question.text, namespace=f"{last} {question.conversation}", limit=_K, mode="vector"
    )
    return [hit.memory.uid for hit in hits]


def _found_by_floor(floor: Floor, exact: Any, work: _Work) -> list[list[str]]:
    places = {group: work.places(group) for group in {q.conversation for q in work.questions}}
    asked = floor.encode([question.text for question in work.questions])
    found = []
    for question, vector in zip(work.questions, asked, strict=True):
        own = places[question.conversation]
        best = own[np.argsort(-(exact[own] @ vector), kind="stable")[:_K]]
        found.append([work.keys[i][1] for i in best])
    return found


def _evidence(found: Sequence[Sequence[str]], questions: Sequence[Question]) -> float:
    """Return the share of a question's evidence that was found, in the mean over the questions."""
    shares = [len(q.evidence & {*f}) / len(q.evidence) for f, q in zip(found, questions, strict=True)]
    return round(sum(shares) / len(shares), 3)


def _without_the_model(arguments: argparse.Namespace) -> float:
    """Return milliseconds of processor time for 1,000 memories of a stack whose model costs nothing."""
    say("what is not embedding")
    drafts = [{"content": text, "namespace": "null"} for text in sample_texts(_N_NULL)]
    with running_measured("null", sqlite=arguments.sqlite) as measured:
        measured.client.wait(measured.client.enqueue_many(drafts[:1000]), timeout_s=120)
        before = processor_s(measured.stack)
        measured.client.enqueue_many(drafts)
        measured.wait_until_searchable(n=_N_NULL, timeout_s=_LONGEST_INGEST_S)
        return rounded(sum(used_ms(before, processor_s(measured.stack), n=_N_NULL).values()))


if __name__ == "__main__":
    main()
