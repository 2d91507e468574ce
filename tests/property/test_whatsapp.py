"""Whatever was said is read once and in order, however the telephone writes its lines."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree

LAYOUTS = {
    "[%d.%m.%y, %H:%M:%S] ": "dmy",
    "[%d/%m/%Y, %I:%M:%S %p] ": "dmy",
    "\u200e[%Y/%m/%d, %H:%M:%S] ": "ymd",
    "%m/%d/%y, %H:%M - ": "mdy",
    "%d/%m/%Y, %I:%M\u202f%p - ": "dmy",
    "%d-%m-%y %H:%M - ": "dmy",
    "%Y-%m-%d, %H.%M - ": "ymd",
}
words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"], exclude_characters="<>()[]:"))
lines = words.map(lambda text: f"said {text}".rstrip())
said = st.lists(lines, min_size=1, max_size=3).map("\n".join)
instants = st.datetimes(datetime(2001, 1, 1), datetime(2099, 1, 1))  # noqa: DTZ001
authors = st.sampled_from(["Ann", "Bob Smith", "+49 170 1234567", "名前"])


@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    messages=st.lists(st.tuples(instants, authors, said), min_size=1, max_size=6),
)
def test_what_was_said_is_read_once_and_in_order(
    layout: str, messages: list[tuple[datetime, str, str]]
) -> None:
    text = "\n".join(f"{at:{layout}}{author}: {words}" for at, author, words in messages)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chat.txt"
        path.write_text(text, encoding="utf-8")
        with open_tree(path) as tree:
            [found] = detect(tree).found
            options = ReadOptions(date_order=LAYOUTS[layout])  # type: ignore[arg-type]
            read = list(found.reader.read(tree, found.members, options))
    has_seconds = "%S" in layout
    assert [(m.created_at, m.author, m.text) for m in read if isinstance(m, ChatMessage)] == [
        (at.replace(microsecond=0, second=at.second * has_seconds, tzinfo=UTC), author, words)
        for at, author, words in messages
    ]
