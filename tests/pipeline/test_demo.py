"""`memory demo` as a process: it shows the whole pipeline, and leaves no process and no file behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.processes import processes_that_name
from tests.pipeline.stack import MEMORY
from tests.waiting import wait_until


def test_the_demo_stores_finds_and_forgets_and_leaves_nothing(home: Path) -> None:
    demo = _started(home)
    wait_until(lambda: len(processes_that_name(home)) > 3, timeout_s=60, why="its stack runs in this place")
    printed, said = demo.communicate(timeout=240)
    assert demo.returncode == 0, said
    result = json.loads(printed)
    counts = {name: result[name] for name in ("accepted", "stored", "searchable", "dead")}
    assert counts == {"accepted": 397, "stored": 397, "searchable": 397, "dead": 0}
    deleted, best = result["deleted"], result["answers"][0]["results"][0]
    assert deleted["content"] == best["content"]
    assert not deleted["found_again"]
    _assert_nothing_left(home)


@pytest.mark.parametrize("sign", ["postgres/unfinished-*/data/base/1", "stack.json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_stopped_early_leaves_nothing(home: Path, number: signal.Signals, sign: str) -> None:
    demo = _started(home)
    wait_until(
        lambda: list(home.glob("memory-demo-*/" + sign)), timeout_s=60, why="its stack starts in this place"
    )
    demo.send_signal(number)
    _, said = demo.communicate(timeout=60)
    assert demo.returncode not in {0, -number}, said
    _assert_nothing_left(home)


def _started(home: Path) -> subprocess.Popen[str]:
    """Start the demo with all its files under `home`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEMORY_", "REDIS_", "FAISS_"))}
    environment = {**inherited, "TMPDIR": str(home)}
    return subprocess.Popen(
        [*MEMORY, "demo", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _assert_nothing_left(home: Path) -> None:
    assert processes_that_name(home) == []
    assert list(home.iterdir()) == []
