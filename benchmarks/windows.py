"""Long memories: what windows cost, and what is found with them.

Each session of LoCoMo's conversations is one memory, of some 700 word pieces; a question's evidence are the
sessions that answer it. The baseline embeds what the model reads at once, the beginning of each session.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.rig.command import Report, command, execute
from benchmarks.rig.figures import medians, rounded, timed
from benchmarks.rig.question_sets import QuestionSet, read_question_set
from memory.embedding import EmbeddingModel

_FIRST = (1, 3, 5)
Session = tuple[str, str]
"""(conversation, session)"""


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--locomo", type=Path, required=True, metavar="DIR", help="LoCoMo's files")
    arguments = parser.parse_args()
    execute("windows", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    found = read_question_set(arguments.locomo)
    sessions = _sessions(found)
    texts, model = [*sessions.values()], EmbeddingModel(n_threads=1)
    rounds = []
    for _ in range(arguments.rounds):
        cutting_s, parts = timed(lambda: [model.engine.split(text) for text in texts])
        windows_s, windows = timed(lambda: model.encode_windows(texts))
        begins_s, begins = timed(lambda: model.encode(texts))
        n = sum(map(len, parts))
        rounds.append(
            {
                "cutting, ms a window": 1000 * cutting_s / n,
                "all, ms a window": 1000 * windows_s / n,
                "baseline, ms a memory": 1000 * begins_s / len(texts),
                "cutting ÷ all": cutting_s / windows_s,
            }
        )
    report.figures["memories"] = len(texts)
    report.figures["windows"] = n
    report.figures |= medians(rounds)
    asked = model.encode([question.text for question in found.questions])
    report.figures["evidence, windows"] = _evidence(found, [*sessions], windows, asked)
    report.figures["evidence, baseline"] = _evidence(found, [*sessions], [*begins[:, np.newaxis]], asked)


def _sessions(found: QuestionSet) -> Mapping[Session, str]:
    turns: dict[Session, list[str]] = defaultdict(list)
    for (conversation, key), turn in found.turns.items():
        turns[conversation, _session(key)].append(turn.line)
    return {session: "\n".join(texts) for session, texts in turns.items()}


def _session(key: str) -> str:
    return key.partition(":")[0]


def _evidence(
    found: QuestionSet,
    sessions: Sequence[Session],
    vectors: Sequence[npt.NDArray[np.float32]],
    asked: npt.NDArray[np.float32],
) -> dict[str, float]:
    """Return the share of a question's sessions among the first of its conversation, in the mean."""
    shares: dict[str, list[float]] = defaultdict(list)
    for question, query in zip(found.questions, asked, strict=True):
        scores = {
            session: float((rows @ query).max())
            for (conversation, session), rows in zip(sessions, vectors, strict=True)
            if conversation == question.conversation
        }
        best = sorted(scores, key=lambda session: -scores[session])
        wanted = {_session(key) for key in question.evidence}
        for first in _FIRST:
            shares[f"first {first}"].append(len(wanted & {*best[:first]}) / len(wanted))
    return {name: rounded(sum(some) / len(some)) for name, some in shares.items()}


if __name__ == "__main__":
    main()
