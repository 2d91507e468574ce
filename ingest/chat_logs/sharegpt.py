"""ShareGPT: conversations of `from` and `value`, and the ways in which data sets vary them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.chat_logs.json_lines import conversations
from ingest.chat_logs.messages import ChatMessage, Flaw, Kind, Place, Role
from ingest.chat_logs.nameless import NamelessConversations
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.chat_logs.trees import Member, Tree

_KEYS = ("conversations", "conversation", "items")
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "function_call": "tool",
    "observation": "tool",
}
_KINDS: dict[Role, Kind] = {"system": "system", "tool": "tool"}


def _recognise(sample: Sample) -> str | None:
    turns = _turns(sample.first)
    found = bool(turns) and any(_said(mapping(turn)) for turn in turns[:3])
    return "conversations of `from` and `value`, or the like" if found else None


def _read(_tree: Tree, members: Sequence[Member], _options: ReadOptions) -> Iterator[ChatMessage | Flaw]:
    for member in members:
        names = NamelessConversations()
        for place, found in conversations(member):
            if isinstance(found, Flaw):
                yield found
            elif turns := _turns(found):
                yield from _messages(turns, name(found.get("id")) or names.name(_opening(turns)), place)
            else:
                yield Flaw(place=place, reason="this conversation has no turns")


def _messages(turns: list[Any], conversation_id: str, place: Place) -> Iterator[ChatMessage | Flaw]:
    for n, turn in enumerate(turns, start=1):
        here = Place(file=place.file, at=f"{place.at}, message {n}")
        said = _said(mapping(turn))
        if not said:
            yield Flaw(place=here, reason="this turn has neither `from` and `value` nor the like")
        for speaker, words in said:
            role = _ROLES.get(speaker.lower(), "other")
            yield ChatMessage(
                conversation_id=conversation_id,
                title=None,
                role=role,
                text=words,
                place=here,
                author=speaker if role == "other" else None,
                kind=_KINDS.get(role, "shown"),
            )


def _opening(turns: list[Any]) -> list[Any]:
    """Return the turns up to the first that is no instruction: many begin with the same instruction."""
    spoken = (n for n, turn in enumerate(turns) if [who for who, _ in _said(mapping(turn))] != ["system"])
    return turns[: next(spoken, 0) + 1]


def _turns(found: dict[str, Any]) -> list[Any]:
    return next((turns for key in _KEYS if (turns := sequence(found.get(key)))), [])


def _said(turn: dict[str, Any]) -> list[tuple[str, str]]:
    """Return who said what: once, but twice where a turn is a pair of question and answer."""
    for speaker, words in (("from", "value"), ("role", "content")):
        if isinstance(turn.get(speaker), str) and words in turn:
            return [(turn[speaker], text(turn[words]))]
    return [(who, turn[who]) for who in ("human", "assistant") if isinstance(turn.get(who), str)]


SHAREGPT = Reader(
    name="sharegpt",
    title="ShareGPT conversations",
    looked_for="conversations of `from` and `value`, or the like",
    recognise=_recognise,
    read=_read,
    is_lines=True,
)
