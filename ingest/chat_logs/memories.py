"""Messages as raw memories: always under the same uid, with their place in their conversation."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ingest.chat_logs.messages import Flaw
from ingest.chat_logs.text import clean
from ingest.hashed_names import HashedNames, hashed
from memory.errors import InvalidMemory
from memory.messages import RawMemory, raw_memory
from memory.models import MemoryType
from memory.validation import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from ingest.chat_logs.messages import ChatMessage, Kind
    from memory.models import Metadata


class MessageMemories:
    """Turns the messages of one import into memories.

    Args:
        platform: the format's name, first part of uids and sources.
        namespace: whose memories they become.
        max_content_bytes: bound of one memory's content.
        imported_at: the instant of messages that have none, and follow none that has.
        include: what is imported besides what was shown as a message.
        importance: gives a message's; `None` leaves it absent, which counts as neutral.

    """

    def __init__(
        self,
        platform: str,
        *,
        namespace: str,
        max_content_bytes: int,
        imported_at: datetime,
        include: Iterable[Kind] = (),
        importance: Callable[[ChatMessage], float] | None = None,
    ) -> None:
        self._platform = platform
        self._namespace = namespace
        self._max_content_bytes = max_content_bytes
        self._imported_at = imported_at
        self._kinds = frozenset({"shown", *include})
        self._importance = importance
        self._positions: Counter[str] = Counter()
        self._conversation: str | None = None
        self._last_at: datetime | None = None  # of the conversation's last message that has an instant
        self._names = HashedNames()  # in this conversation

    def memories(self, messages: Iterable[ChatMessage | RawMemory | Flaw]) -> Iterator[RawMemory | Flaw]:
        """Yield a memory for each message that is wanted and not blank; flaws and memories as they are."""
        for message in messages:
            if isinstance(message, Flaw | RawMemory):
                yield message
            elif (memory := self._memory(message)) is not None:
                yield memory

    def _memory(self, message: ChatMessage) -> RawMemory | Flaw | None:
        if message.conversation_id != self._conversation:
            self._conversation, self._last_at = message.conversation_id, None
            self._names = HashedNames()
        # Counted before anything is left out: it must not depend on what is.
        position = self._positions[message.conversation_id]
        self._positions[message.conversation_id] += 1
        self._last_at = message.created_at or self._last_at
        uid = self._uid(message)
        text = clean(message.text).strip()
        if message.kind not in self._kinds or not text:
            return None
        try:
            return raw_memory(
                text,
                max_content_bytes=self._max_content_bytes,
                memory_type=MemoryType.RESPONSE if message.role == "assistant" else MemoryType.EPISODIC,
                source=_name(f"{self._platform}:{message.conversation_id}"),
                metadata=self._metadata(message, position),
                uid=uid,
                namespace=self._namespace,
                created_at=self._last_at or self._imported_at,
            )
        except InvalidMemory as error:
            return Flaw(place=message.place, reason=str(error), text=text[:1000])

    def _metadata(self, message: ChatMessage, position: int) -> Metadata:
        metadata = _metadata(message, position)
        if self._importance is not None:
            metadata["importance"] = self._importance(message)
        return metadata

    def _uid(self, message: ChatMessage) -> str:
        if message.message_id is not None:
            return _name(f"{self._platform}:{message.conversation_id}:{message.message_id}")
        said_at = message.created_at.isoformat() if message.created_at else ""
        speaker = message.author or message.role
        parts = (self._platform, message.conversation_id, said_at, speaker, message.text)
        return f"{self._platform}:{self._names.name(_written(*parts))}"


def _metadata(message: ChatMessage, position: int) -> Metadata:
    found: Metadata = {
        "conversation": message.conversation_id,
        "title": message.title,
        "position": position,
        "role": message.role,
        "author": message.author,
        "message": message.message_id,
        "reply_to": message.parent_id,
        "kind": None if message.kind == "shown" else message.kind,
        "dated": None if message.created_at else False,
        "tz_known": None if message.tz_known or not message.created_at else False,
        **message.details,
    }
    return {
        key: clean(value) if isinstance(value, str) else value
        for key, value in found.items()
        if value is not None
    }


def _name(text: str) -> str:
    """Return a text that is a valid uid or source, itself where it is one."""
    fits = len(text) <= MAX_NAME_LENGTH and text.isprintable() and text == text.strip()
    platform, _, rest = text.partition(":")
    return text if fits else f"{platform}:{hashed(_written(rest))}"


def _written(*parts: str) -> bytes:
    return "\x00".join(parts).encode(errors="surrogatepass")
