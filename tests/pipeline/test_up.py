"""`memory up` as a process: found by others, alone in its home, gone without a trace."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from memory.models import MemoryState
from tests.pipeline.processes import alive
from tests.pipeline.stack import MEMORY, Stack, running_up
from tests.waiting import wait_until


def test_without_a_stack_the_commands_say_how_to_start_one(home: Path) -> None:
    nobody = Stack(home=home, process=subprocess.Popen(["true"]), environment={"MEMORY_HOME": str(home)})
    nobody.process.wait()
    for arguments in (["status"], ["search", "x"], ["add", "x"], ["verify"], ["dlq", "list"]):
        assert "Start one with `memory up`" in nobody.memory(*arguments, expect=3).stderr


def test_a_bad_setting_stops_the_start_with_its_name_value_and_range(home: Path) -> None:
    bad = {"MEMORY_HOME": str(home), "MEMORY_EMBED_BATCH": "0", "MEMORY_DB_URL": "mysql://x"}
    nobody = Stack(home=home, process=subprocess.Popen(["true"]), environment=bad)
    nobody.process.wait()
    message = nobody.memory("up", expect=6).stderr
    assert "MEMORY_EMBED_BATCH = '0': must be a whole number, 1 to 4096" in message
    assert (
        "MEMORY_DB_URL = 'mysql://x': must be postgresql+psycopg://… or postgresql://… or sqlite://…"
        in message
    )


def test_a_stack_survives_a_stop_and_two_workers_share_the_work(home: Path) -> None:
    with running_up(home, MEMORY_EMBED_WORKERS="2") as stack:
        with stack.client() as client:
            receipts = client.enqueue_many(f"Memory number {i} of the first run" for i in range(700))
            assert {o.state for o in client.wait(receipts, timeout_s=90)} == {MemoryState.SEARCHABLE}
        second = subprocess.run(
            [*MEMORY, "up"],
            env=dict(stack.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 3
        assert "running" in second.stderr
        for name in ("embed-1", "embed-2"):
            assert "batch_stored" in (home / "logs" / f"{name}.log").read_text(), f"{name} took part"
        processes = stack.processes()
    assert stack.process.returncode == 0
    assert not alive(processes)
    with running_up(home) as stack, stack.client() as client:
        assert client.status().searchable == 700
        assert len(client.search("memory", limit=700)) == 700
        assert "snapshot_loaded" in (home / "logs" / "indexer.log").read_text()


def test_a_killed_stack_leaves_no_process_and_loses_nothing(home: Path) -> None:
    with running_up(home) as stack:
        with stack.client() as client:
            client.enqueue_many(f"Memory number {i}" for i in range(500))
        processes = stack.processes()
        stack.process.kill()
        wait_until(lambda: not alive(processes), timeout_s=10, why="no process is left")
    with running_up(home) as stack, stack.client() as client:
        wait_until(lambda: client.status().searchable == 500, timeout_s=60, why="all are searchable")
        assert client.verify()["equal"]


def test_ctrl_c_stops_it_in_seconds(home: Path) -> None:
    with running_up(home) as stack:
        processes = stack.processes()
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(timeout=15) == 0
        assert not alive(processes)
