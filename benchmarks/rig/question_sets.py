"""Conversations with questions, and which of their turns answer each: LoCoMo's files, or LongMemEval's.

The files are not part of the project: an argument of a benchmark names where they lie.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dateutil import parser as dateutil_parser

from benchmarks.rig.command import NotPossible

_ADVERSARIAL = 5  # LoCoMo's category that asks for what was never said
_ABSTENTION = "_abs"  # so ends the id of such a question in LongMemEval
_TURN = re.compile(r"D:?(\d+):(\d+)")
_WEEKDAY = re.compile(r"\([A-Z][a-z]{2}\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one of the speakers said at once."""

    conversation: str
    key: str
    session: str
    position: int  # in the session, from 0
    author: str
    text: str
    caption: str | None = None  # of a picture that was sent with it
    session_at: datetime

    @property
    def line(self) -> str:
        """The turn as a line of a play."""
        return f"{self.author}: {self.text}"

    def as_draft(self) -> dict[str, Any]:
        """Return the memory of this turn, as a chat log's importer would make it."""
        return {
            "content": f"{self.text} [{self.caption}]" if self.caption else self.text or "…",
            "uid": self.key,
            "namespace": self.conversation,
            "source": f"{self.conversation}:{self.session}",
            "metadata": {"author": self.author, "position": self.position},
            "created_at": self.session_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about one conversation, and the keys of the turns that answer it."""

    conversation: str
    text: str
    category: str = ""
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Turns by (conversation, key), questions, and how many pieces of evidence name no turn."""

    turns: dict[tuple[str, str], Turn] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    n_dropped: int = 0


def read_question_set(path: Path) -> QuestionSet:
    """Read a file, or every JSON file of a directory; questions without any evidence are left out.

    Raises:
        NotPossible: there is none, or one is of neither form.

    """
    found = QuestionSet()
    n_dropped = 0
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            data = json.loads(file.read_text())
            n_dropped += (
                _read_longmemeval(data, found)
                if isinstance(data, list)
                else _read_locomo(data, file.stem, found)
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            message = f"{file}: neither LoCoMo nor LongMemEval: {type(error).__name__}: {error}"
            raise NotPossible(message) from None
    if not found.turns:
        raise NotPossible(f"{path}: there is no conversation in it")
    return QuestionSet(found.turns, found.questions, n_dropped)


def evidence_keys(evidence: Iterable[str]) -> set[str]:
    """Return the turns that are named, also where several stand in one text or a number begins with 0."""
    return {f"D{int(s)}:{int(t)}" for text in evidence for s, t in _TURN.findall(text)}


def _read_locomo(data: dict[str, Any], name: str, found: QuestionSet) -> int:
    """Add a file of one conversation; return how many pieces of evidence name no turn."""
    own = {turn.key: turn for turn in _locomo_turns(data["conversation"], name)}
    found.turns.update({(name, key): turn for key, turn in own.items()})
    n_dropped = 0
    for asked in data["qa"]:
        if asked["category"] == _ADVERSARIAL:
            continue
        named = evidence_keys(asked["evidence"])
        known = frozenset(named & own.keys())
        n_dropped += len(named) - len(known)
        if known:
            found.questions.append(
                Question(
                    conversation=name,
                    text=asked["question"],
                    category=str(asked["category"]),
                    evidence=known,
                )
            )
    return n_dropped


def _locomo_turns(conversation: dict[str, Any], name: str) -> Iterator[Turn]:
    for session, turns in conversation.items():
        if not re.fullmatch(r"session_\d+", session):
            continue
        session_at = _instant(conversation[f"{session}_date_time"])
        for position, turn in enumerate(turns):
            yield Turn(
                conversation=name,
                key=turn["dia_id"],
                session=session,
                position=position,
                author=turn["speaker"],
                text=turn["text"],
                caption=turn.get("blip_caption"),
                session_at=session_at,
            )


def _read_longmemeval(data: list[dict[str, Any]], found: QuestionSet) -> int:
    """Add questions, each with a conversation of its own; return how many have no evidence."""
    n_dropped = 0
    for asked in data:
        name = asked["question_id"]
        if name.endswith(_ABSTENTION):
            continue
        evidence = set()
        sessions = zip(
            asked["haystack_session_ids"], asked["haystack_dates"], asked["haystack_sessions"], strict=True
        )
        for number, (session, date, turns) in enumerate(sessions):
            for position, turn in enumerate(turns):
                key = f"{number}:{position}"
                found.turns[name, key] = Turn(
                    conversation=name,
                    key=key,
                    session=f"{number}:{session}",
                    position=position,
                    author=turn["role"],
                    text=turn["content"],
                    session_at=_instant(date),
                )
                if turn.get("has_answer"):
                    evidence.add(key)
        if evidence:
            found.questions.append(
                Question(
                    conversation=name,
                    text=asked["question"],
                    category=asked["question_type"],
                    evidence=frozenset(evidence),
                )
            )
        n_dropped += not evidence
    return n_dropped


def _instant(text: str) -> datetime:
    return dateutil_parser.parse(_WEEKDAY.sub("", text)).replace(tzinfo=UTC)
