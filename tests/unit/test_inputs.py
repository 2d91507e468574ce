"""What an import opens: in the format that is found or said, and with a clear word where there is none."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest.chat_logs.formats import READERS
from ingest.chat_logs.messages import Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.inputs import ImportOptions, opened, share_read
from memory.errors import InvalidMemory
from memory.messages import RawMemory

CHAT = "31.7.20, 10:00 - Ann: hi"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def contents(path: Path, **options: Any) -> list[tuple[str, str]]:
    """Return (format, content or reason) of all that is read at `path`, what was passed over last."""
    with opened(str(path), ImportOptions(imported_at=NOW, **options)) as (inputs, flaws):
        found = [(source.format, one) for source in inputs for one in source.memories()]
    found += [("", flaw) for flaw in flaws]
    return [(name, one.content if isinstance(one, RawMemory) else one.reason) for name, one in found]


def test_a_folder_of_several_formats_is_read_file_by_file_and_what_is_unknown_is_listed(
    tmp_path: Path,
) -> None:
    (tmp_path / "chat.txt").write_text(CHAT)
    (tmp_path / "memories.jsonl").write_text('{"content": "a memory"}\nbad\n')
    (tmp_path / "notes.txt").write_text("Dear diary")
    (tmp_path / "empty").touch()
    whatsapp, memory, bad, *unknown = contents(tmp_path)
    assert whatsapp == ("whatsapp", "hi")
    assert memory == ("jsonl", "a memory")
    assert bad[0] == "jsonl"
    assert "valid JSON" in bad[1]
    assert [reason.split(".")[0] for _, reason in unknown] == [
        "the file is empty",
        "this is of no known format",
    ]


def test_an_unknown_file_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Dear diary")
    with pytest.raises(InvalidMemory) as refused:
        contents(tmp_path / "notes.txt")
    for reader in READERS:
        assert f"{reader.title}: {reader.looked_for}" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "there is no such file"),
        ("empty", "the file is empty"),
        ("folder", "there is nothing in it"),
    ],
)
def test_where_there_is_nothing_that_is_said(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidMemory, match=reason):
        contents(tmp_path / name)


def test_a_format_that_is_said_is_believed_and_an_unknown_one_refused(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(CHAT)
    assert contents(tmp_path, format="jsonl")[0][0] == "jsonl"
    with pytest.raises(InvalidMemory, match="format = 'msn': must be one of chatgpt, claude, slack"):
        contents(tmp_path, format="msn")


def test_an_input_has_another_key_when_its_content_or_the_options_are_others(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    keys = set()
    for content, read in (("1", None), ("2", None), ("2", "Ann")):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("chat.txt", f"{CHAT} {content}")
        options = ImportOptions(imported_at=NOW, read=ReadOptions(own_name=read))
        with opened(str(path), options) as ([source], _):
            keys.add(source.key)
            assert not any(isinstance(found, Flaw) for found in source.memories())
    assert len(keys) == 3


@pytest.mark.parametrize("is_zip", [False, True], ids=["file", "zip"])
def test_how_much_was_read_is_known_by_the_bytes(tmp_path: Path, is_zip: bool) -> None:
    lines = "".join(f'{{"content": "memory {n:06}"}}\n' for n in range(100_000))
    path = tmp_path / ("log.zip" if is_zip else "memories.jsonl")
    if is_zip:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("memories.jsonl", lines)
    else:
        path.write_text(lines)
    with opened(str(path), ImportOptions(imported_at=NOW)) as (inputs, _):
        [source] = inputs
        shares = [share_read(inputs) for n, _ in enumerate(source.memories()) if n % 10_000 == 0]
        assert share_read(inputs) == 1
    expected = [n / 10 for n in range(10)]
    assert shares == pytest.approx(expected, abs=0.15)
    assert shares == sorted(shares)


def test_of_nothing_all_is_read() -> None:
    assert share_read([]) == 1


def test_an_importance_is_guessed_only_where_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(CHAT)
    found = []
    for guesses in (False, True):
        options = ImportOptions(imported_at=NOW, guesses_importance=guesses)
        with opened(str(tmp_path), options) as ([source], _):
            [memory] = source.memories()
            assert isinstance(memory, RawMemory)
            found.append(memory.importance)
    assert found == [None, 0.135]
