"""The library's page is true: its blocks run in order and print what they say, and no call is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memory import errors
from memory.memory_manager import MemoryManager
from memory.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_blocks_run_in_order_and_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("MEMORY_DB_URL", "FAISS_INDEX_PATH", "EMBEDDING_MODEL", "USE_GPU"):
        monkeypatch.delenv(variable, raising=False)
    named: dict[str, object] = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"block {number} of library.md", "exec"), named)
        out, err = capfd.readouterr()
        assert out.splitlines() == re.findall(r"# -> (.*)", block), block
        assert err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memories.db", "memories.faiss"]


def test_every_public_call_is_shown() -> None:
    code = "".join(BLOCKS)
    for name in vars(MemoryManager):
        if not name.startswith("_"):
            assert f".{name}" in code, name


def test_every_error_and_variable_that_is_named_exists() -> None:
    variables = {str(field.alias) for field in Settings.model_fields.values()}
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE)) <= variables
    named = re.findall(r"^\| `(\w+)` \| \w", PAGE, flags=re.MULTILINE)
    assert len(named) == 9
    for name in named:
        assert issubclass(getattr(errors, name), errors.MemorySystemError)


def test_the_defaults_are_those_of_the_settings() -> None:
    shown = dict(re.findall(r"^\| \S+ \| `(\w+)` \| `([^`]+)` \|$", PAGE, flags=re.MULTILINE))
    assert shown.pop("MEMORY_DB_URL") == "sqlite:///memories.db"
    fields = {field.alias: str(field.default) for field in Settings.model_fields.values()}
    assert shown == {name: fields[name] for name in ("EMBEDDING_MODEL", "USE_GPU")}
