"""CSV and Parquet: which column is which field, and what is said where that cannot be told."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.chat_logs.messages import Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.inputs import ImportOptions, opened
from ingest.tables import parse_columns
from memory.errors import InvalidMemory
from memory.messages import RawMemory

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "first", "when": "2024-05-01 10:00", "mood": "glad"},
    {"id": "b", "text": "second", "when": "2024-05-02 10:00", "mood": None},
]
MAPPED = ["content=text", "uid=id", "created_at=when", "metadata.mood=mood"]


def read(path: Path, *columns: str, **options: Any) -> list[RawMemory | Flaw]:
    given = ReadOptions(columns=parse_columns(columns), **options)
    with opened(str(path), ImportOptions(imported_at=NOW, read=given)) as (inputs, flaws):
        return [*(one for source in inputs for one in source.memories()), *flaws]


def reasons(path: Path, *columns: str, **options: Any) -> list[str]:
    return [found.reason for found in read(path, *columns, **options) if isinstance(found, Flaw)]


@pytest.fixture(params=["csv", "tsv", "utf-16", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The rows in one of the forms."""
    if request.param == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "table")
        return tmp_path / "table"
    separator = "\t" if request.param == "tsv" else ","
    lines = [list(ROWS[0]), *(["" if cell is None else cell for cell in row.values()] for row in ROWS)]
    path = tmp_path / ("table.tsv" if request.param == "tsv" else "table.csv")
    text = "".join(separator.join(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-16" if request.param == "utf-16" else "utf-8")
    return path


def test_columns_of_other_names_are_told(table: Path) -> None:
    found = read(table, *MAPPED, time_zone=ZoneInfo("Europe/Lisbon"), namespace="ann")
    assert [memory for memory in found if isinstance(memory, Flaw)] == []
    assert [
        (m.uid, m.content, m.created_at.isoformat(), m.metadata, m.namespace)
        for m in found
        if isinstance(m, RawMemory)
    ] == [
        ("a", "first", "2024-05-01T09:00:00+00:00", {"mood": "glad"}, "ann"),
        ("b", "second", "2024-05-02T09:00:00+00:00", {}, "ann"),
    ]


def test_where_no_column_is_the_content_the_columns_are_named(table: Path) -> None:
    [reason] = reasons(table)
    assert reason == (
        "no column is `content`; say which one is: --column content=NAME, of: id, text, when, mood"
    )


def test_a_column_that_is_not_there_is_named_with_those_that_are(table: Path) -> None:
    [reason] = reasons(table, "content=texte")
    assert reason == "the column 'texte' is not there; its columns are: id, text, when, mood"


def test_of_two_columns_of_one_name_none_is_taken(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("content,content\na,b\n")
    assert reasons(tmp_path / "table.csv") == [
        "the column 'content' is there twice; its columns are: content, content"
    ]


@pytest.mark.parametrize(
    "wrong", [["content"], ["contents=a"], ["content="], ["metadata.=a"], ["content=a", "content=b"]]
)
def test_what_names_no_field_is_refused_with_those_there_are(wrong: list[str]) -> None:
    with pytest.raises(
        InvalidMemory, match=r"column = .*must be FIELD=COLUMN, once each, FIELD one of content"
    ):
        parse_columns(wrong)


def test_a_table_is_recognised_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("when|content\n2024-01-01|a memory\n")
    [memory] = read(tmp_path / "notes.txt")
    assert isinstance(memory, RawMemory)
    assert memory.content == "a memory"
    (tmp_path / "empty.csv").write_text("\n\n")
    with pytest.raises(InvalidMemory, match="the file is empty"):
        read(tmp_path / "empty.csv")


def test_the_same_rows_have_the_same_uids_in_every_form(tmp_path: Path) -> None:
    rows = [
        {"content": "tea", "source": "x"},
        {"content": "tea", "source": "x"},
        {"content": "tea", "source": "y"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a")
    (tmp_path / "b.csv").write_text(
        "source,content\n" + "".join(f"{r['source']},{r['content']}\n" for r in rows)
    )
    uids = [[m.uid for m in read(tmp_path / name) if isinstance(m, RawMemory)] for name in ("a", "b.csv")]
    assert uids[0] == uids[1]
    assert len(set(uids[0])) == 3


def test_a_cell_longer_than_a_memory_may_be_is_a_flaw_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"content,uid\n{'x' * 9_000_000},a\n{'y' * 2_000_000},b\nshort,c\n")
    first, second, third = read(tmp_path / "table.csv")
    assert isinstance(first, Flaw)
    assert "field larger than field limit" in first.reason
    assert isinstance(second, Flaw)
    assert "at most 1048576 bytes" in second.reason
    assert isinstance(third, RawMemory)


def test_a_parquet_file_that_is_cut_off_or_of_other_bytes_is_a_flaw(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"content": "x" * 1000}] * 100), tmp_path / "table")
    whole = (tmp_path / "table").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "name").write_bytes(b"PAR1")
    for name in ("cut", "name"):
        [reason] = reasons(tmp_path / name)
        assert reason.startswith("it is damaged, or of a kind that pyarrow cannot read: ")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist([{"content": "x"}]), tmp_path / "table")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert reasons(tmp_path / "table") == [
        "to read Parquet, pyarrow must be installed: pip install 'everkept[parquet]'"
    ]


def test_cells_that_are_no_text_are_refused_by_the_field(tmp_path: Path) -> None:
    rows = [{"content": 1.5, "metadata": "[]"}, {"content": 2.5, "metadata": "{"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table")
    assert all("metadata = " in reason for reason in reasons(tmp_path / "table"))
    pq.write_table(pa.Table.from_pylist([{"content": b"\xff"}]), tmp_path / "bytes")
    [reason] = reasons(tmp_path / "bytes")
    assert "content = " in reason
    assert "must be text" in reason
