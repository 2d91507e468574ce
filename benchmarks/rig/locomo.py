"""Conversations in the form of LoCoMo: turns, and questions with the turns that answer them.

The files are not part of the project: `--locomo DIR` names where they lie.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rig.command import NotPossible

_CATEGORIES = {1, 2, 3, 4}  # 5 asks for what was never said
_TURN = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about one conversation, and the keys of the turns that answer it."""

    conversation: str
    text: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """Turns by (conversation, key), questions, and how many pieces of evidence name no turn."""

    turns: dict[tuple[str, str], str]
    questions: list[Question]
    n_dropped: int


def read_locomo(directory: Path) -> Conversations:
    """Read every JSON file of a directory.

    Raises:
        NotPossible: there is none.

    """
    turns: dict[tuple[str, str], str] = {}
    questions: list[Question] = []
    n_dropped = 0
    for path in sorted(directory.glob("*.json")):
        data = json.loads(path.read_text())
        own = _turns(data["conversation"])
        turns |= {(path.stem, key): text for key, text in own.items()}
        for qa in data["qa"]:
            if qa["category"] not in _CATEGORIES:
                continue
            named = evidence_keys(qa["evidence"])
            known = frozenset(key for key in named if key in own)
            n_dropped += len(named) - len(known)
            if known:
                questions.append(Question(conversation=path.stem, text=qa["question"], evidence=known))
    if not turns:
        raise NotPossible(f"--locomo {directory}: there is no conversation in it")
    return Conversations(turns=turns, questions=questions, n_dropped=n_dropped)


def evidence_keys(evidence: list[str]) -> set[str]:
    """Return the turns that are named, also where several stand in one text or a number begins with 0."""
    return {f"D{int(s)}:{int(t)}" for text in evidence for s, t in _TURN.findall(text)}


def _turns(conversation: dict[str, Any]) -> dict[str, str]:
    return {
        turn["dia_id"]: f"{turn['speaker']}: {turn['text']}"
        for name, session in conversation.items()
        if re.fullmatch(r"session_\d+", name)
        for turn in session
    }
