"""What searches find: questions about real conversations, whose evidence is known.

PATH is a directory of LoCoMo's files, or a file of LongMemEval's. Each turn is a memory, as an importer makes
it, each conversation a namespace, and each question is searched for in its own, in all modes: vectors alone,
words alone, hybrid (the default), and hybrid with two messages around each hit, which count as shown with
it. Figures are means over the questions; where several turns are the evidence, recall@k is the
share of them among the first k hits, any@k whether there is any. By default the library searches, in this
process; with --stack the pipeline does, through a client: the same, but for the latency.

--ablation says what each term of the hybrid score is worth: the figures without it, and with weights fitted
anew to these questions, to all conversations but the one that is asked about.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.command import Report, command, execute
from benchmarks.rig.figures import in_ms, timed
from benchmarks.rig.question_sets import Question, QuestionSet, read_question_set
from benchmarks.rig.retrieval_metrics import AT, METRICS, scored
from benchmarks.rig.softmax_fit import Floats, fitted
from benchmarks.rig.stacks import running_measured
from benchmarks.rig.waiting import say
from memory.memory_manager import MemoryManager
from memory.prompt_text import about_tokens
from memory.relevance import WEIGHTS
from memory.search_request import FurtherOptions

_MODES: Mapping[str, FurtherOptions] = {
    "vector": {"mode": "vector"},
    "words": {"mode": "words"},
    "hybrid": {},
    "hybrid, context=2": {"context": 2},
}
_OF_CATEGORY = ("recall@5", "recall@10", "any@10", "MRR", "nDCG@10")
_MOST_HITS = 1000
_MOST_LEFT_OUT = 20  # conversations, each of which costs a fit
_ADDED_AT_ONCE = 500
_INGEST_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class _Hit:
    shown: tuple[str, ...]  # keys: the memory's own first
    n_tokens: int
    terms: Mapping[str, float]


_Search = Callable[[Question, int, FurtherOptions], list[_Hit]]


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("path", type=Path, metavar="PATH", help="LoCoMo's directory, or LongMemEval's file")
    parser.add_argument("--stack", action="store_true", help="through a client of a running stack")
    parser.add_argument("--sqlite", action="store_true", help="with --stack: SQLite instead of Postgres")
    parser.add_argument("--rerank", action="store_true", help="also with the reranker of MEMORY_RERANKER")
    parser.add_argument("--ablation", action="store_true", help="also what each term is worth")
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args()
    execute("retrieval", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    asked = read_question_set(arguments.path)
    report.figures |= {
        "memories": len(asked.turns),
        "questions": len(asked.questions),
        "evidence that names no turn": asked.n_dropped,
    }
    modes = {**_MODES, **({"hybrid, reranked": FurtherOptions(rerank=True)} if arguments.rerank else {})}
    opened = _running(asked, sqlite=arguments.sqlite) if arguments.stack else _in_process(asked)
    with opened as search:
        for name, options in modes.items():
            say(f"searching: {name}")
            report.figures[name] = _figures(asked.questions, search, options, rounds=arguments.rounds)
        if arguments.ablation:
            report.figures["ablation"] = _ablation(asked.questions, search)


@contextlib.contextmanager
def _in_process(asked: QuestionSet) -> Iterator[_Search]:
    with (
        tempfile.TemporaryDirectory(prefix="memory-benchmark-") as home,
        MemoryManager(f"sqlite:///{home}/memories.db") as manager,
    ):
        drafts = [turn.as_draft() for turn in asked.turns.values()]
        for start in range(0, len(drafts), _ADDED_AT_ONCE):
            manager.add_memories(drafts[start : start + _ADDED_AT_ONCE])
            say(f"stored {min(start + _ADDED_AT_ONCE, len(drafts)):,} of {len(drafts):,}")

        def search(question: Question, limit: int, options: FurtherOptions) -> list[_Hit]:
            found = manager.search_memories(
                question.text, limit=limit, **{**options, "namespace": question.conversation}
            )
            return [
                _hit(
                    [r["memory"], *r.get("before", ()), *r.get("after", ())],
                    {name: term.value for name, term in r.get("terms", {}).items()},
                )
                for r in found
            ]

        yield search


@contextlib.contextmanager
def _running(asked: QuestionSet, *, sqlite: bool) -> Iterator[_Search]:
    with running_measured("real", sqlite=sqlite) as measured:
        drafts = [turn.as_draft() for turn in asked.turns.values()]
        measured.client.enqueue_many(drafts)
        measured.wait_until_searchable(n=len(drafts), timeout_s=_INGEST_TIMEOUT_S)

        def search(question: Question, limit: int, options: FurtherOptions) -> list[_Hit]:
            found = measured.client.search(
                question.text, limit=limit, **{**options, "namespace": question.conversation}
            )
            return [
                _hit(
                    [hit.memory, *hit.before, *hit.after],
                    {name: term.value for name, term in hit.terms.items()},
                )
                for hit in found
            ]

        yield search


def _hit(shown: Sequence[Any], terms: Mapping[str, float]) -> _Hit:
    n_tokens = sum(about_tokens(memory.content) for memory in shown)
    return _Hit(tuple(memory.uid for memory in shown), n_tokens, terms)


def _figures(
    questions: Sequence[Question], search: _Search, options: FurtherOptions, *, rounds: int
) -> dict[str, Any]:
    by_category: dict[str, list[dict[str, float]]] = defaultdict(list)
    seconds, n_tokens = [], []
    for number in range(rounds):
        for question in questions:
            taken_s, hits = timed(lambda q=question: search(q, max(AT), options))
            seconds.append(taken_s)
            if number == 0:
                n_tokens.append(sum(hit.n_tokens for hit in hits[:10]))
                by_category[question.category].append(scored([hit.shown for hit in hits], question.evidence))
    everything = [one for some in by_category.values() for one in some]
    return {
        **_means(everything),
        "by category": {name: _means(some, _OF_CATEGORY) for name, some in sorted(by_category.items())},
        "tokens of the first 10": round(sum(n_tokens) / len(n_tokens)),
        "latency": in_ms(seconds),
    }


def _means(some: Sequence[Mapping[str, float]], names: Sequence[str] = METRICS) -> dict[str, float]:
    means = {name: round(sum(one[name] for one in some) / len(some), 4) for name in names}
    return means | {"questions": len(some)}


def _ablation(questions: Sequence[Question], search: _Search) -> dict[str, Any]:
    """Return what the weights reach as they are, without each term, fitted anew, and left one out."""
    say("ablation: every memory with its terms")
    terms, right = [], []
    for question in questions:
        hits = search(question, _MOST_HITS, {"explain": True})
        terms.append(np.array([[hit.terms[name] for name in WEIGHTS] for hit in hits]))
        right.append(np.array([hit.shown[0] in question.evidence for hit in hits]))
    there = [bool(is_right.any()) for is_right in right]
    weights = np.array(list(WEIGHTS.values()))

    def reached(given: Callable[[Question], Floats]) -> dict[str, float]:
        shares = []
        for question, values, is_right in zip(questions, terms, right, strict=True):
            order = np.argsort(-(values @ given(question)), kind="stable")
            n = len(question.evidence)
            shares.append((is_right[order[:5]].sum() / n, is_right[order[:10]].sum() / n))
        means = np.mean(shares, axis=0).tolist()
        return {"recall@5": round(means[0], 4), "recall@10": round(means[1], 4)}

    def fit(keep: Callable[[Question], bool]) -> Floats:
        chosen = [i for i, q in enumerate(questions) if there[i] and keep(q)]
        return fitted([terms[i] for i in chosen], [right[i] for i in chosen])

    found: dict[str, Any] = {"as it is": reached(lambda _: weights)}
    for place, name in enumerate(WEIGHTS):
        without = weights * (np.arange(len(weights)) != place)
        found[f"without {name}"] = reached(lambda _, w=without: w)
    conversations = sorted({question.conversation for question in questions})
    everywhere = fit(lambda _: True)
    found["fitted to all"] = reached(lambda _: everywhere) | _named(everywhere)
    if 1 < len(conversations) <= _MOST_LEFT_OUT:
        by_name = {name: fit(lambda q, n=name: q.conversation != n) for name in conversations}
        found["fitted, one conversation left out"] = reached(lambda q: by_name[q.conversation])
        found["its weights"] = {name: _named(some) for name, some in by_name.items()}
    return found


def _named(weights: Floats) -> dict[str, float]:
    return {name: round(value, 3) for name, value in zip(WEIGHTS, weights.tolist(), strict=True)}


if __name__ == "__main__":
    main()
