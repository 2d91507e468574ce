"""No text, however odd, takes longer than in proportion to its length: one could stop an import."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.rig.chat_exports import formats, write_export
from ingest.chat_logs.reader import ReadOptions
from ingest.inputs import ImportOptions, opened
from memory.messages import RawMemory

RUNS = [
    "\ue200",
    "【",
    "†",
    " ",
    "\t ",
    "<",
    "<edited ",
    "<omitted",
    "<@U1|",
    "a.bc (",
    "\\",
    "&amp;",
    '"',
    "[",
    "{",
]
MARKS = "【\ue200<\u200e[<@"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", formats())
def test_a_message_that_is_one_long_run_is_read_in_time(name: str, run: str, tmp_path: Path) -> None:
    text = f"said {MARKS}{run * (200_000 // len(run))} end"
    path = write_export(name, tmp_path, ["first", text, "and more"])
    options = ImportOptions(imported_at=datetime(2026, 1, 1, tzinfo=UTC), read=ReadOptions())
    with opened(str(path), options) as (inputs, _):
        found = [one for source in inputs for one in source.memories()]
    assert [memory.content for memory in found if isinstance(memory, RawMemory)][-1] == "and more"
