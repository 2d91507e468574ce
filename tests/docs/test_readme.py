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
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from api_stub.commands.app import app
from tests.docs.tables import README, with_tables
from tests.doors.api import free_port
from tests.pipeline.stack import MEMORY, Stack, running_up

ROOT = README.parent


@pytest.fixture(scope="module")
def stack(shared_home: Path) -> Iterator[Stack]:
    with running_up(shared_home) as running:
        yield running


def test_the_tables_are_those_of_the_code() -> None:
    assert README.read_text() == with_tables(README.read_text()), "run: ./run python -m tests.docs.tables"


def test_the_clients_example_runs_as_it_stands(stack: Stack) -> None:
    example, _ = _blocks("python")
    printed = _run(example, stack.environment, stack.home)
    assert "searchable 1\n" in printed
    assert "She prefers tea without sugar" in printed
    assert "100 settled; 0 rejected" in printed


def test_the_librarys_example_runs_as_it_stands_without_any_server(tmp_path: Path) -> None:
    _, example = _blocks("python")
    assert "She prefers tea without sugar" in _run(example, {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"memories.db", "memories.faiss"}


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


def test_the_session_with_curl_goes_as_it_is_printed() -> None:
    [session] = [block for block in _blocks("console") if "curl" in block]
    port = free_port()
    script = session.replace("localhost:8080", f"localhost:{port}")
    commands = re.split(r"^\$ ", script, flags=re.MULTILINE)[1:]
    assert commands[0].startswith("memory up --api ")
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        with running_up(home, "--api", "--api-port", str(port)) as stack:
            printed = ["memory() { " + shlex.join(MEMORY) + ' "$@"; }; exec 2>&1']
            expected = []
            for command in commands[1:]:
                typed, said = re.fullmatch(r"((?:.*\\\n)*.*)\n(.*)", command.rstrip(), re.DOTALL).groups()  # type: ignore[union-attr]
                printed += [typed, "echo; echo ==="]
                expected.append(said)
            done = subprocess.run(
                ["bash", "-euc", "\n".join(printed)],
                env={**os.environ, **stack.environment},
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
    answers = [answer.strip() for answer in done.stdout.split("===")[:-1]]
    assert len(answers) == len(expected) == 5
    for answer, said in zip(answers, expected, strict=True):
        pattern = ".*".join(re.escape(part) for part in said.split("…"))
        assert re.fullmatch(pattern, answer), f"{answer}\nis not\n{said}"


def test_every_command_helps_with_an_example() -> None:
    helps = _helps(get_command(app), name="memory")
    commands = "add ingest search get update delete cleanup erase status verify doctor demo"
    assert {f"memory {name}" for name in (*commands.split(), "dlq show", "db upgrade")} <= set(helps)
    for name, text in helps.items():
        assert re.search(rf"^Example: .*\b{name}\b", text, flags=re.MULTILINE), name


def test_files_and_commands_that_the_documents_name_are_there() -> None:
    for document in (README, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
    script = (ROOT / "run").read_text()
    assert {"demo)", "test)", "memory)"} <= set(re.findall(r"\w+\)", script))


def _helps(command: Any, *, name: str) -> dict[str, str]:
    """The help of every command, those inside groups too, by what is typed."""
    if not isinstance(command, TyperGroup):
        return {name: str(command.help)}
    helps: dict[str, str] = {}
    for word, below in command.commands.items():
        helps |= _helps(below, name=f"{name} {word}")
    return helps


def _run(example: str, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)
