"""Each format's reader yields exactly what stands in `expected.jsonl`, beside the log that it reads.

A folder `golden/FORMAT/CASE` holds `input` (a file of that stem, or a folder) and `expected.jsonl`: a line
for each message, without what is as usual, and for each flaw.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree
from memory.messages import DEFAULT_NAMESPACE, DEFAULT_SOURCE, RawMemory
from memory.models import MemoryType

GOLDEN = Path(__file__).with_name("golden")
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/expected.jsonl"))
_USUAL = {"title": None, "message_id": None, "parent_id": None, "author": None, "created_at": None,
          "tz_known": True, "kind": "shown", "details": {}}  # fmt: skip

_OF_MEMORIES = {"content": None, "uid": None, "created_at": None, "namespace": DEFAULT_NAMESPACE,
                "source": DEFAULT_SOURCE, "memory_type": MemoryType.EPISODIC, "metadata": {}}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_a_log_is_read_as_expected(case: Path) -> None:
    lines = (case / "expected.jsonl").read_text().splitlines()
    assert read(_input(case), as_format=case.parent.name) == [json.loads(line) for line in lines]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_a_zip_of_it_is_read_alike(case: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w", zipfile.ZIP_DEFLATED) as file:
        source = _input(case)
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            file.write(path, path.name if source.is_file() else path.relative_to(source))
    assert read(tmp_path / "log.zip", as_format=case.parent.name) == read(
        _input(case), as_format=case.parent.name
    )


def read(path: Path, *, as_format: str, options: ReadOptions | None = None) -> list[dict[str, Any]]:
    """Read what is detected at `path`, all of which must be of this format; files by their last name."""
    with open_tree(path) as tree:
        detected = detect(tree)
        assert [found.reader.name for found in detected.found] == [as_format]
        [found] = detected.found
        messages = [*found.reader.read(tree, found.members, options or ReadOptions()), *detected.flaws]
    return [_as_json(message) for message in messages]


def _input(case: Path) -> Path:
    [found] = case.glob("input*")
    return found


def _as_json(message: ChatMessage | RawMemory | Flaw) -> dict[str, Any]:
    if isinstance(message, RawMemory):
        found = {name: getattr(message, name) for name in _OF_MEMORIES}
        found["created_at"] = message.created_at.isoformat()
        return {key: value for key, value in found.items() if value != _OF_MEMORIES[key]}
    if isinstance(message, Flaw):
        return {"flaw": message.reason, "at": message.place.at}
    found = asdict(message)
    del found["place"]
    if message.created_at:
        found["created_at"] = message.created_at.isoformat()
    return {key: value for key, value in found.items() if key not in _USUAL or value != _USUAL[key]}
