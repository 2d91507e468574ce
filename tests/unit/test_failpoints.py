"""Failpoints: nothing unless a test armed them, each once, never in production."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from memory import failpoints
from memory.errors import SettingsError
from memory.failpoints import FAILPOINTS, Failpoint, FailpointReached, arm, reach
from memory.process import run_process
from memory.settings import read_settings

ROOT = Path(__file__).parents[2]
POINT: Failpoint = "embed.read"


@pytest.fixture(autouse=True)
def nothing_armed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("MEMORY_FAILPOINTS", "MEMORY_MODE"):
        monkeypatch.delenv(variable, raising=False)
    arm(None)
    yield
    arm(None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What a test writes to make a process fail there."""
    file = tmp_path / POINT
    file.write_text("raise\n")
    return file


def test_by_default_a_file_does_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert read_settings().failpoints is None
    assert run_process("test", lambda _: 0) == 0
    reach(POINT)
    assert file.exists()


def test_an_armed_process_fails_at_the_point_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_FAILPOINTS", str(file.parent))
    assert run_process("test", lambda _: 0) == 0
    reach("embed.committed")
    with pytest.raises(FailpointReached, match=r"^failpoint embed\.read: raise$"):
        reach(POINT)
    reach(POINT)
    assert not file.exists()


def test_an_armed_process_without_a_directory_goes_on(tmp_path: Path) -> None:
    arm(tmp_path / "is not there")
    for point in FAILPOINTS:
        reach(point)


def test_a_word_that_is_no_action_is_told(file: Path) -> None:
    file.write_text("explode")
    arm(file.parent)
    with pytest.raises(FailpointReached, match="explode"):
        reach(POINT)


def test_a_process_is_killed_at_the_point(file: Path) -> None:
    file.write_text("kill")
    assert _reach_elsewhere(file).returncode == -signal.SIGKILL


def test_a_process_hangs_at_the_point_until_it_is_killed(file: Path) -> None:
    file.write_text("hang")
    with pytest.raises(subprocess.TimeoutExpired) as hanging:
        _reach_elsewhere(file, timeout_s=3)
    assert hanging.value.stdout == b"before\n"


@pytest.mark.parametrize("set_first", ["MEMORY_FAILPOINTS", "MEMORY_MODE"])
def test_in_production_they_are_refused_by_the_name_of_the_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], set_first: str
) -> None:
    values = {"MEMORY_FAILPOINTS": str(file.parent), "MEMORY_MODE": "production"}
    for variable in sorted(values, key=lambda v: v != set_first):
        monkeypatch.setenv(variable, values[variable])
    with pytest.raises(SettingsError, match=r"^MEMORY_FAILPOINTS = .*: must be absent where MEMORY_MODE"):
        read_settings()
    assert run_process("worker", lambda _: pytest.fail("it ran")) != 0
    assert "MEMORY_FAILPOINTS" in capsys.readouterr().err
    reach(POINT)
    assert file.exists()


def test_production_without_failpoints_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_MODE", "production")
    assert read_settings().mode == "production"


def test_every_failpoint_has_its_place_in_the_code() -> None:
    sources = [p for package in ("memory", "workers", "indexer") for p in (ROOT / package).rglob("*.py")]
    code = "".join(path.read_text() for path in sources if path != Path(failpoints.__file__))
    assert [point for point in get_args(Failpoint) if code.count(f'reach("{point}")') != 1] == []


def _reach_elsewhere(file: Path, *, timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
    code = (
        "from memory.failpoints import *; from pathlib import Path\n"
        f"arm(Path({str(file.parent)!r})); print('before', flush=True); reach({file.name!r}); print('after')"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=timeout_s, check=False
    )
