"""Reads a chat log of one format, whichever that is."""

from __future__ import annotations

from pathlib import Path

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree
from memory.messages import RawMemory


def read_log(path: Path, options: ReadOptions | None = None) -> list[ChatMessage | RawMemory | Flaw]:
    """Return all that is read, all of it of one format."""
    with open_tree(path) as tree:
        [found] = detect(tree).found
        return list(found.reader.read(tree, found.members, options or ReadOptions()))


def messages_of(path: Path, options: ReadOptions | None = None) -> list[ChatMessage]:
    """Return the messages, where there is no flaw."""
    found = read_log(path, options)
    assert not [flaw for flaw in found if isinstance(flaw, Flaw)]
    return [message for message in found if isinstance(message, ChatMessage)]
