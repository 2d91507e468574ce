"""What every reader yields: the messages of conversations, and the places in files that are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from memory.models import Metadata

Role = Literal["user", "assistant", "system", "tool", "other"]
"""Who speaks: the person who asks, the assistant, the platform, a program, or one of several people."""

Kind = Literal["shown", "hidden", "system", "tool"]
"""Whether the person saw it as a message, and if not, what it was: only `shown` is imported by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands in what was imported."""

    file: str  # the path, or the name inside a zip
    at: str = ""  # `line 12`, `conversation 3, message 5`; empty: the file as a whole

    def __str__(self) -> str:
        return f"{self.file}, {self.at}" if self.at else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message, its text as the person saw it.

    Messages of one conversation come in the order of the conversation. `created_at` is aware UTC; where the
    file names no zone and none was given as an option, it is the time of day as written, and `tz_known` is
    false. `None` where the format has no dates, or this message has none.
    """

    conversation_id: str
    title: str | None
    role: Role
    text: str
    place: Place
    message_id: str | None = None  # unique in its conversation; `None` where the format has none
    parent_id: str | None = None  # the message that this one answers
    author: str | None = None
    created_at: datetime | None = None
    tz_known: bool = True
    kind: Kind = "shown"
    details: Metadata = field(
        default_factory=dict
    )  # what else is worth keeping, such as names of attachments


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What could not be read, and why. The rest of the file goes on, unless the reason says otherwise."""

    place: Place
    reason: str
    text: str = ""  # the beginning of what stands there
