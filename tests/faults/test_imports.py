"""Imports that are killed, and that follow a growing file: each memory is there once and counted once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from memory.schema import memories
from tests.faults.null_stack import database_of, wait_until_idle
from tests.pipeline.stack import MEMORY, Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_N = int(os.environ.get("EVERKEPT_TEST_IMPORT", "20000"))
_N_KILLS = 3


def test_an_import_killed_again_and_again_accepts_each_message_once_and_counts_it_once(
    null_stack: Stack, tmp_path: Path
) -> None:
    wait_until_idle(null_stack)
    export = tmp_path / "conversations.json"
    export.write_text(json.dumps([_conversation(i) for i in range(_N // 100)]))
    arguments = ("ingest", str(export), "-n", "killed", "--json")
    for n_kills in range(1, _N_KILLS + 1):
        with _started(null_stack, *arguments) as process:
            at_least = n_kills * _N // (_N_KILLS + 1)
            wait_until(lambda: _n_rows(null_stack, "killed") >= at_least, timeout_s=120, why="it imports")  # noqa: B023
            assert process.poll() is None, "the import was over before the kill"
            process.kill()
    [file] = null_stack.json(*arguments[:-1])["files"]
    assert {k: file[k] for k in ("format", "new", "known", "deleted_before", "rejected")} == {
        "format": "chatgpt",
        "new": _N,
        "known": 0,
        "deleted_before": 0,
        "rejected": 0,
    }
    assert _n_rows(null_stack, "killed") == _N
    assert not list((null_stack.home / "imports").iterdir()), "a journal of what is over"
    again = null_stack.json(*arguments[:-1])
    assert (again["new"], again["known"], again["accepted"]) == (0, _N, 0)
    assert _n_rows(null_stack, "killed") == _N


def test_a_file_that_is_followed_is_read_line_by_whole_line_as_it_grows(
    null_stack: Stack, tmp_path: Path
) -> None:
    log = tmp_path / "live.jsonl"
    log.write_text('{"content": "one"}\n{"content": "tw')
    with _started(null_stack, "ingest", str(log), "-n", "live", "--follow", "--json") as process:
        wait_until(lambda: _n_rows(null_stack, "live") == 1, timeout_s=60, why="what is whole is read")
        with log.open("a") as file:
            file.write('o"}\n{"content": "one"}\nnot JSON\n')
        wait_until(lambda: _n_rows(null_stack, "live") == 3, timeout_s=60, why="what was added is read")
        log.write_text('{"content": "another file"}\n')
        wait_until(lambda: _n_rows(null_stack, "live") == 4, timeout_s=60, why="it is read from its start")
        process.send_signal(signal.SIGINT)
        result = json.loads(process.communicate(timeout=60)[0])
    assert (result["accepted"], result["searchable"], result["rejected"]) == (4, 4, 1)


def test_only_a_file_of_lines_is_followed(null_stack: Stack, tmp_path: Path) -> None:
    export = tmp_path / "conversations.json"
    export.write_text(json.dumps([_conversation(0)]))
    said = null_stack.memory("ingest", str(export), "--follow", expect=2).stderr
    assert "only a file of lines can be followed, and this is a ChatGPT export" in said
    assert (
        "only a file can be followed"
        in null_stack.memory("ingest", str(tmp_path), "--follow", expect=2).stderr
    )


def _conversation(number: int) -> object:
    nodes = {
        f"n{i}": {
            "parent": f"n{i - 1}" if i else None,
            "children": [f"n{i + 1}"],
            "message": {
                "id": f"m{i}",
                "author": {"role": ("user", "assistant")[i % 2]},
                "create_time": 1.6e9 + 1000 * number + i,
                "content": {"content_type": "text", "parts": [f"Message {i} of conversation {number}"]},
            },
        }
        for i in range(100)
    }
    return {"conversation_id": f"c{number}", "current_node": "n99", "mapping": nodes}


def _started(stack: Stack, *arguments: str) -> psutil.Popen:
    environment = {**os.environ, **stack.environment}
    return psutil.Popen([*MEMORY, *arguments], env=environment, stdout=subprocess.PIPE)


def _n_rows(stack: Stack, namespace: str) -> int:
    statement = select(func.count()).where(memories.c.namespace == namespace)
    with database_of(stack) as database, database.read() as connection:
        return connection.scalar(statement) or 0
