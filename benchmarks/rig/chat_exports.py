"""Exports of chats in every format that is read, made of the sample's texts: any size, the same each time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

PER_CONVERSATION = 50
_START = datetime(2020, 1, 13, 9, tzinfo=UTC)  # no month: the order of dates is known


def write_export(name: str, folder: Path, texts: Sequence[str]) -> Path:
    """Write an export in a format, with one message a text; return the path to import."""
    return _WRITERS[name](folder, texts)


def formats() -> list[str]:
    """Return the names of the formats that can be written."""
    return list(_WRITERS)


def write_chatgpt(path: Path, conversations: Iterator[Sequence[str]]) -> None:
    """Write ChatGPT's `conversations.json`, a conversation at a time."""
    with path.open("w", encoding="utf-8") as file:
        for number, texts in enumerate(conversations):
            file.write(",\n" if number else "[")
            json.dump(_tree(number, texts), file)
        file.write("]")


def _tree(number: int, texts: Sequence[str]) -> dict[str, Any]:
    nodes = {
        f"{number}-{i}": {
            "id": f"{number}-{i}",
            "parent": f"{number}-{i - 1}" if i else None,
            "children": [f"{number}-{i + 1}"] if i + 1 < len(texts) else [],
            "message": {
                "id": f"00000000-{number}-{i}",
                "author": {"role": ("user", "assistant")[i % 2], "name": None, "metadata": {}},
                "create_time": 1.6e9 + 10_000.0 * number + i + 0.25,
                "update_time": None,
                "content": {"content_type": "text", "parts": [text]},
                "status": "finished_successfully",
                "end_turn": True,
                "weight": 1.0,
                "metadata": {"model_slug": "gpt-4o", "request_id": "0" * 36, "citations": []},
                "recipient": "all",
                "channel": None,
            },
        }
        for i, text in enumerate(texts)
    }
    head = {"title": f"Conversation {number}", "conversation_id": f"c-{number}", "create_time": 1.6e9}
    return {**head, "current_node": f"{number}-{len(texts) - 1}", "mapping": nodes}


def _chatgpt(folder: Path, texts: Sequence[str]) -> Path:
    write_chatgpt(folder / "conversations.json", _conversations(texts))
    return folder / "conversations.json"


def _claude(folder: Path, texts: Sequence[str]) -> Path:
    def message(i: int, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text, "citations": []}]
        base = {"uuid": f"m{i}", "text": text, "content": content, "attachments": [], "files": []}
        return {**base, "sender": ("human", "assistant")[i % 2], "created_at": _at(i).isoformat()}

    found = [
        {"uuid": f"c{n}", "name": "", "chat_messages": [message(i, text) for i, text in enumerate(some)]}
        for n, some in enumerate(_conversations(texts))
    ]
    return _json(folder / "conversations.json", found)


def _slack(folder: Path, texts: Sequence[str]) -> Path:
    root = folder / "slack"
    (root / "general").mkdir(parents=True)
    _json(root / "users.json", [{"id": "U1", "name": "ann"}])
    _json(root / "channels.json", [{"id": "C1", "name": "general"}])
    for day, some in enumerate(_conversations(texts)):
        messages = [
            {
                "type": "message",
                "user": "U1",
                "text": text,
                "ts": f"{1_600_000_000 + 86_400 * day + i}.000001",
            }
            for i, text in enumerate(some)
        ]
        _json(root / "general" / f"{_START + timedelta(days=day):%Y-%m-%d}.json", messages)
    return root


def _discord(folder: Path, texts: Sequence[str]) -> Path:
    author = {"id": "1", "name": "ann", "discriminator": "0", "nickname": "Ann", "isBot": False, "roles": []}
    messages = [
        {
            "id": str(10**18 + i),
            "type": "Default",
            "timestamp": _at(i).isoformat(),
            "timestampEdited": None,
            "isPinned": False,
            "content": text,
            "author": author,
            "attachments": [],
            "embeds": [],
            "reactions": [],
            "mentions": [],
        }
        for i, text in enumerate(texts)
    ]
    head = {"guild": {"id": "1", "name": "g"}, "channel": {"id": "2", "type": "GuildTextChat", "name": "c"}}
    return _json(folder / "channel.json", {**head, "messages": messages, "messageCount": len(texts)})


def _telegram(folder: Path, texts: Sequence[str]) -> Path:
    messages = [
        {
            "id": i,
            "type": "message",
            "date": f"{_at(i):%Y-%m-%dT%H:%M:%S}",
            "date_unixtime": str(int(_at(i).timestamp())),
            "from": "Ann",
            "from_id": "user1",
            "text": text,
            "text_entities": [{"type": "plain", "text": text}],
        }
        for i, text in enumerate(texts)
    ]
    chat = {"name": "Tea", "type": "personal_chat", "id": 1, "messages": messages}
    return _json(folder / "result.json", {"about": "", "chats": {"about": "", "list": [chat]}})


def _whatsapp(folder: Path, texts: Sequence[str]) -> Path:
    path = folder / "WhatsApp Chat with Ann.txt"
    lines = (f"{_at(i):%d/%m/%Y, %H:%M} - {('Ann', 'Bob')[i % 2]}: {text}" for i, text in enumerate(texts))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _claude_code(folder: Path, texts: Sequence[str]) -> Path:
    base = {"type": "user", "sessionId": "s", "cwd": "/", "version": "1", "isSidechain": False}
    lines = (
        {**base, "uuid": f"u{i}", "parentUuid": f"u{i - 1}", "timestamp": _at(i).isoformat(), "message": m}
        for i, m in enumerate({"role": "user", "content": text} for text in texts)
    )
    return _lines(folder / "session.jsonl", lines)


def _openai(folder: Path, texts: Sequence[str]) -> Path:
    lines = (
        {"messages": [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(some)]}
        for some in _conversations(texts)
    )
    return _lines(folder / "messages.jsonl", lines)


def _sharegpt(folder: Path, texts: Sequence[str]) -> Path:
    found = [
        {
            "id": f"c{n}",
            "conversations": [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(some)],
        }
        for n, some in enumerate(_conversations(texts))
    ]
    return _json(folder / "sharegpt.json", found)


def _langchain(folder: Path, texts: Sequence[str]) -> Path:
    found = [
        {"type": ("human", "ai")[i % 2], "data": {"content": text, "additional_kwargs": {}, "id": f"m{i}"}}
        for i, text in enumerate(texts)
    ]
    return _json(folder / "messages.json", found)


def _jsonl(folder: Path, texts: Sequence[str]) -> Path:
    lines = ({"content": t, "source": "chat", "created_at": _at(i).isoformat()} for i, t in enumerate(texts))
    return _lines(folder / "memories.jsonl", lines)


def _rows(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for i, text in enumerate(texts):
        yield {"content": text, "source": "chat", "created_at": _at(i), "uid": f"row {i}"}


def _csv(folder: Path, texts: Sequence[str]) -> Path:
    path = folder / "memories.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["content", "source", "created_at", "uid"])
        writer.writeheader()
        writer.writerows(_rows(texts))
    return path


def _parquet(folder: Path, texts: Sequence[str]) -> Path:
    import pyarrow as pa  # noqa: PLC0415 (an extra)
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(pa.Table.from_pylist(list(_rows(texts))), folder / "memories.parquet")
    return folder / "memories.parquet"


_WRITERS: dict[str, Callable[[Path, Sequence[str]], Path]] = {
    "chatgpt": _chatgpt,
    "claude": _claude,
    "slack": _slack,
    "discord": _discord,
    "telegram": _telegram,
    "whatsapp": _whatsapp,
    "claude_code": _claude_code,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "langchain": _langchain,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}


def _conversations(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    rest = iter(texts)
    while some := list(islice(rest, PER_CONVERSATION)):
        yield some


def _at(i: int) -> datetime:
    return _START + timedelta(seconds=i)


def _json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _lines(path: Path, found: Iterator[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return path
