"""What a format's reader is: a name, a way to recognise its files, and a generator of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ingest.chat_logs.json_values import beginning
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.text import CleanUtf8
from ingest.chat_logs.trees import Member, Tree
from memory.messages import RawMemory
from memory.validation import MAX_CONTENT_BYTES

if TYPE_CHECKING:
    from datetime import tzinfo

SAMPLE_BYTES = 64 * 1024

DateOrder = Literal["dmy", "mdy", "ymd"]
"""Whether 1/2/03 is in February, in January, or in the year 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a file does not say itself."""

    date_order: DateOrder | None = None
    time_zone: tzinfo | None = None  # of times that name none
    own_name: str | None = None  # who of a chat's authors is the user: the others are `other`
    namespace: str | None = None  # of memories that name none
    columns: tuple[tuple[str, str], ...] = ()  # of a table: the column of each field that is named otherwise
    max_content_bytes: int = MAX_CONTENT_BYTES  # bound of one memory's content


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The beginning of a member, by which its format is recognised."""

    member: Member

    @cached_property
    def text(self) -> str:
        """The first 64 KiB, clean. Raises UnreadableMember."""
        with self.member.open() as stream:
            return (CleanUtf8(stream).read(SAMPLE_BYTES) or b"").decode(errors="ignore")

    @cached_property
    def value(self) -> dict[str, Any] | list[Any] | None:
        """The first JSON value, as much of it as is in the text; `None` where there is none."""
        value: dict[str, Any] | list[Any] | None = beginning(self.text.encode())
        return value

    @property
    def first(self) -> dict[str, Any]:
        """That value if it is an object, or the first object in that list; an empty one if there is none."""
        found = next(iter(self.value), None) if isinstance(self.value, list) else self.value
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format.

    `recognise` gives the reason to take a member for this format, or `None`. `read` gets all members of the
    tree that were taken, sorted by name, and yields the messages of each conversation in their order; what is
    wrong with one of them is a flaw, and the rest goes on. It raises UnreadableMember for nothing that it
    could pass over, and nothing else.

    A format that is a whole folder has `gather` instead: which members of a tree belong to it, none if it is
    another one.
    """

    name: str  # the platform's, in uids and sources: `chatgpt`
    title: str  # for people: `ChatGPT export`
    looked_for: str  # what `recognise` goes by, in words
    read: Callable[[Tree, Sequence[Member], ReadOptions], Iterator[ChatMessage | RawMemory | Flaw]]
    recognise: Callable[[Sample], str | None] = lambda _sample: None
    gather: Callable[[Tree], Sequence[Member]] = lambda _tree: ()
    is_lines: bool = False  # whether what is added at the end of a file leaves what was read before as it is
