"""The README is true: its tables are the code's, its examples run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.tables import README, with_tables
from tests.pipeline.stack import MEMORY, Stack, running_up

ROOT = README.parent


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        with running_up(home) as running:
            yield running


def test_the_tables_are_those_of_the_code() -> None:
    assert README.read_text() == with_tables(README.read_text()), "run: ./run python -m tests.docs.tables"


def test_the_python_example_runs_as_it_stands(stack: Stack) -> None:
    [example] = _blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "searchable 1\n" in done.stdout
    assert "She prefers tea without sugar" in done.stdout
    assert "100 settled; 0 rejected" in done.stdout


def test_the_commands_run_as_they_stand(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [lines] = _blocks("sh")
    printed = ""
    for line in lines.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "memory"
        printed += stack.memory(*arguments).stdout
    for expected in ("hazelnuts", "force 6 from the west", "accepted 397 ·", "deleted memory", "are equal"):
        assert expected in printed


def test_every_command_helps_with_an_example() -> None:
    names = re.findall(r"^│ (\w+) ", _help(), flags=re.MULTILINE)
    assert {"up", "add", "ingest", "search", "get", "delete", "cleanup", "status", "verify", "doctor"} < set(
        names
    )
    calls = [[name] for name in names if name != "dlq"] + [["dlq", sub] for sub in ("list", "retry", "purge")]
    for call in calls:
        assert "Example: " in _help(*call), call


def test_files_and_commands_that_the_documents_name_are_there() -> None:
    for document in (README, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
    script = (ROOT / "run").read_text()
    assert {"demo)", "test)", "memory)"} <= set(re.findall(r"\w+\)", script))


def _help(*command: str) -> str:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [*MEMORY, *command, "--help"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)
