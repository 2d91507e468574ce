"""All formats, and which of them a file, folder or zip is in, by what stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.chat_logs.chatgpt import CHATGPT
from ingest.chat_logs.claude_ai import CLAUDE
from ingest.chat_logs.claude_code import CLAUDE_CODE
from ingest.chat_logs.discord import DISCORD
from ingest.chat_logs.langchain import LANGCHAIN
from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.openai_messages import OPENAI
from ingest.chat_logs.reader import Reader, Sample
from ingest.chat_logs.sharegpt import SHAREGPT
from ingest.chat_logs.slack import SLACK
from ingest.chat_logs.telegram import TELEGRAM
from ingest.chat_logs.trees import UnreadableMember
from ingest.chat_logs.whatsapp import WHATSAPP
from ingest.csv_tables import CSV
from ingest.jsonl import JSONL
from ingest.parquet_tables import PARQUET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.chat_logs.trees import Member, Tree

READERS: tuple[Reader, ...] = (
    CHATGPT,
    CLAUDE,
    SLACK,
    DISCORD,
    TELEGRAM,
    WHATSAPP,
    CLAUDE_CODE,
    OPENAI,
    SHAREGPT,
    LANGCHAIN,
    JSONL,
    PARQUET,
    CSV,
)
"""Those that go by the most particular signs first: the first that recognises a member gets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Members of a tree that are of one format, and the reason to think so."""

    reader: Reader
    members: tuple[Member, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a tree holds. `flaws` names each member that is of no known format or cannot be read."""

    found: tuple[Found, ...]
    flaws: tuple[Flaw, ...]


def reader_named(name: str) -> Reader | None:
    """Return the reader of a format by its name."""
    return next((reader for reader in READERS if reader.name == name), None)


def detect(tree: Tree, readers: Sequence[Reader] = READERS) -> Detected:
    """Find the format of every member. A format that is a whole folder takes all that belongs to it."""
    found: list[Found] = []
    left = list(tree.members)
    for reader in readers:
        if members := tuple(reader.gather(tree)):
            found.append(Found(reader=reader, members=members, reason=reader.looked_for))
            taken = frozenset(members)
            left = [member for member in left if member not in taken]
    recognised: dict[str, list[tuple[Member, str]]] = {}
    flaws = list(tree.flaws)
    for member in left:
        try:
            name, reason = _recognise(Sample(member=member), readers)
            recognised.setdefault(name, []).append((member, reason))
        except UnreadableMember as error:
            flaws.append(Flaw(place=Place(file=member.shown), reason=str(error)))
    for reader in readers:
        if members_of := recognised.get(reader.name):
            members = tuple(member for member, _ in members_of)
            found.append(Found(reader=reader, members=members, reason=members_of[0][1]))
    return Detected(found=tuple(found), flaws=tuple(flaws))


def _recognise(sample: Sample, readers: Sequence[Reader]) -> tuple[str, str]:
    if not sample.text.strip():
        raise UnreadableMember("the file is empty")
    for reader in readers:
        if reason := reader.recognise(sample):
            return reader.name, reason
    looked_for = "; ".join(f"{reader.title}: {reader.looked_for}" for reader in readers)
    raise UnreadableMember(f"this is of no known format. Looked for: {looked_for}")
