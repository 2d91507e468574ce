"""The supervisor: what it restarts, what it stops, and what it never leaves behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from api_stub.stack.children import ChildSpec, exit_status, spawn, stop
from api_stub.stack.servers import PostgresServer
from api_stub.stack.supervisor import Supervisor
from api_stub.stack.watched import WatchedChild
from memory.errors import ChildNeverReady
from tests.pipeline.obedient_stages import obedient, obedient_source
from tests.pipeline.processes import alive, kill_child, python_child, running, wait_for_restart
from tests.waiting import wait_until

_DEAF = """
import pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("deaf").touch()
while True:
    signal.pause()
"""


def test_a_child_that_dies_is_restarted_after_a_growing_pause(home: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(stages=[[obedient("child", home=home)]], say=said.append)
    with _started(supervisor):
        pauses_s = []
        for n_restarts in (1, 2, 3):
            killed_at = time.monotonic()
            _kill_only_child(supervisor)
            wait_for_restart(supervisor, n_restarts=n_restarts)
            pauses_s.append(time.monotonic() - killed_at)
        assert said == [f"child died (signal 9), restarting in {pause} s" for pause in ("0.25", "0.5", "1")]
        assert pauses_s[0] >= 0.25
        assert pauses_s[1] >= 0.5
        assert pauses_s[2] >= 1


def test_the_pause_grows_no_longer_than_it_may(home: Path) -> None:
    said: list[str] = []
    child = obedient("child", home=home)
    with _started(Supervisor(stages=[[child]], say=said.append, longest_pause_s=0.5)) as supervisor:
        for n_restarts in (1, 2, 3):
            _kill_only_child(supervisor)
            wait_for_restart(supervisor, n_restarts=n_restarts)
    assert said == [f"child died (signal 9), restarting in {pause} s" for pause in ("0.25", "0.5", "0.5")]


def test_the_pause_is_short_again_after_a_long_life(home: Path) -> None:
    said: list[str] = []
    now_s = 0.0
    child = WatchedChild(obedient("child", home=home), say=said.append, clock=lambda: now_s)

    def is_up() -> bool:
        child.turn()
        return child.ready

    def is_dead() -> bool:
        child.turn()
        return child.status.pid is None

    def dies_at(moment_s: float) -> None:
        nonlocal now_s
        wait_until(is_up, timeout_s=10, why="the child is ready")
        now_s = moment_s
        kill_child(child.status)
        wait_until(is_dead, timeout_s=10, why="its death is seen")
        now_s += 10

    try:
        for moment_s in (5, 20, 35, 85):
            dies_at(moment_s)
        assert [line.split()[-2] for line in said] == ["0.25", "0.5", "1", "0.25"]
    finally:
        child.finish()


def test_the_processes_a_dead_child_started_die_with_it(home: Path) -> None:
    source = 'import os, pathlib, subprocess\nsubprocess.Popen(["sleep", "1000"])\n' + obedient_source(
        "child"
    )
    with running(python_child("child", source, home=home)) as supervisor:
        [started] = psutil.Process(supervisor.children()[0].pid).children()
        _kill_only_child(supervisor)
        wait_for_restart(supervisor)
        assert alive([started]) == []


def test_a_child_that_is_late_at_its_start_is_killed_and_started_again(home: Path) -> None:
    source = (
        'import pathlib, signal\nif not pathlib.Path("tried").exists():\n    pathlib.Path("tried").touch()\n'
        '    signal.pause()\npathlib.Path("child").touch()\nsignal.pause()\n'
    )
    said: list[str] = []
    spec = python_child("child", source, home=home, start_timeout_s=1)
    with _started(Supervisor(stages=[[spec]], say=said.append)) as supervisor:
        assert said == ["child was not ready in 1 s, restarting in 0.25 s"]
        assert [child.n_restarts for child in supervisor.children()] == [1]


def test_a_child_that_can_never_start_fails_the_run_with_the_end_of_its_log(home: Path) -> None:
    hopeless = python_child("hopeless", 'raise SystemExit("the reason why")', home=home)
    other = obedient("other", home=home)
    supervisor = Supervisor(stages=[[other], [hopeless]], say=print)
    with pytest.raises(
        ChildNeverReady, match=r"(?s)hopeless died .*5 times in a row.*hopeless\.log.*the reason why"
    ):
        supervisor.run(on_ready=_fail)
    assert [child.pid for child in supervisor.children()] == [None, None]


_ENDS_WHEN_TOLD = """
import pathlib, sys
pathlib.Path("child").touch()
print(pathlib.Path("end").read_text())
print("the reason why", flush=True)
sys.exit({code})
"""


def test_a_child_that_says_that_a_restart_cannot_help_ends_the_run_with_its_last_words(home: Path) -> None:
    os.mkfifo(home / "end")
    child = python_child("child", _ENDS_WHEN_TOLD.format(code=os.EX_CONFIG), home=home)
    said: list[str] = []
    supervisor = Supervisor(stages=[[obedient("server", home=home)], [child]], say=said.append)
    with pytest.raises(ChildNeverReady, match=r"child cannot go on.*exit code 78") as ended:
        supervisor.run(on_ready=lambda: _tell(home))
    assert str(ended.value).endswith("child.log:\nthe reason why")
    assert said == []
    assert (home / "child.log").read_text() == "now\nthe reason why\n"
    assert (home / "order").read_text() == "server "
    assert [child.pid for child in supervisor.children()] == [None, None]


def test_a_child_that_says_so_at_its_start_is_not_started_again(home: Path) -> None:
    source = f'print("x")\nraise SystemExit({os.EX_CONFIG})'
    supervisor = Supervisor(stages=[[python_child("hopeless", source, home=home)]], say=print)
    with pytest.raises(ChildNeverReady, match=r"(?s)hopeless cannot go on.*hopeless\.log:\nx$"):
        supervisor.run(on_ready=_fail)
    assert (home / "hopeless.log").read_text() == "x\n"


def test_a_child_that_asks_to_be_started_again_is(home: Path) -> None:
    os.mkfifo(home / "end")
    child = python_child("child", _ENDS_WHEN_TOLD.format(code=os.EX_TEMPFAIL), home=home)
    said: list[str] = []
    with _started(Supervisor(stages=[[child]], say=said.append)) as supervisor:
        for n_restarts in (1, 2):
            _tell(home)
            wait_for_restart(supervisor, n_restarts=n_restarts)
    assert said == [f"child died (exit code 75), restarting in {pause} s" for pause in ("0.25", "0.5")]


def test_a_program_that_is_not_there_is_named(home: Path) -> None:
    spec = ChildSpec(name="ghost", argv=("/no/such/program",), log_path=home / "ghost.log")
    minutes_s = itertools.count(step=60.0)
    ghost = WatchedChild(spec, say=print, clock=lambda: next(minutes_s))
    for _ in range(4):
        ghost.turn()
    with pytest.raises(ChildNeverReady, match=r"ghost could not be started .*/no/such/program"):
        ghost.turn()


def test_a_stage_starts_when_the_one_before_is_ready(home: Path) -> None:
    ready: list[tuple[int, list[bool]]] = []
    supervisor = Supervisor(
        stages=[[obedient("a", home=home), obedient("b", home=home)], [obedient("c", home=home)]],
        say=print,
        on_stage_ready=lambda index: ready.append((index, [child.ready for child in supervisor.children()])),
    )
    with _started(supervisor):
        assert ready == [(0, [True, True, False]), (1, [True, True, True])]


def test_a_callback_that_fails_stops_what_was_started(home: Path) -> None:
    supervisor = Supervisor(stages=[[obedient("a", home=home)]], say=print, on_stage_ready=_fail_in_stage)
    with pytest.raises(AssertionError, match="must not be reached"):
        supervisor.start()
    assert (home / "order").read_text() == "a "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_stages_in_reverse_order(home: Path, number: signal.Signals) -> None:
    with _obedient_stages(home, "abc") as process:
        wait_until((home / "ready").exists, timeout_s=30, why="all stages are ready")
        process.send_signal(number)
        assert process.wait(30) == 0
    assert (home / "order").read_text() == "c b a "


def test_a_signal_during_the_start_stops_what_was_started(home: Path) -> None:
    with _obedient_stages(home, "abc", never_ready="b") as process:
        wait_until((home / "b").exists, timeout_s=30, why="the second stage has begun")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert (home / "order").read_text() == "b a "
    assert not (home / "ready").exists()


def test_a_run_ends_when_its_condition_says_so(home: Path) -> None:
    supervisor = Supervisor(stages=[[obedient("a", home=home)]], say=print)
    assert supervisor.run(on_ready=lambda: None, until=lambda: True) == 0


def test_a_child_that_will_not_stop_is_killed_and_the_exit_code_says_so(home: Path) -> None:
    deaf = python_child("deaf", _DEAF, home=home)
    supervisor = Supervisor(stages=[[deaf]], say=print, stop_timeout_s=0.2)
    assert supervisor.run(on_ready=lambda: None, until=lambda: True) == 1


def test_a_terminal_that_has_gone_keeps_nothing_from_being_restarted(home: Path) -> None:
    def say(_line: str) -> None:
        raise BrokenPipeError

    supervisor = Supervisor(stages=[[obedient("a", home=home)]], say=say)
    with _started(supervisor):
        _kill_only_child(supervisor)
        wait_for_restart(supervisor)


def test_stop_says_whether_the_child_ended_by_itself(home: Path) -> None:
    for spec, is_clean in (
        (obedient("a", home=home), True),
        (python_child("deaf", _DEAF, home=home), False),
    ):
        process = spawn(spec)
        wait_until((home / spec.name).exists, timeout_s=10, why="the child is ready")
        assert stop(process, spec, timeout_s=0.3) is is_clean
        assert exit_status(process) == (0 if is_clean else -signal.SIGKILL)


def test_a_log_is_private_and_grows_over_restarts(home: Path) -> None:
    spec = ChildSpec(name="talker", argv=("echo", "hello"), log_path=home / "logs/talker.log")
    for _ in range(2):
        spawn(spec).wait(10)
    assert spec.log_path.read_text() == "hello\nhello\n"
    assert spec.log_path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def stack_home(home: Path, shared_home: Path) -> Path:
    """A home with the data of a Postgres that never ran, copied because making them takes long."""
    if not (shared_home / "postgres").exists():
        PostgresServer(shared_home / "postgres").prepare()
    shutil.copytree(shared_home / "postgres", home / "postgres")
    return home


def test_a_killed_supervisor_leaves_no_process_behind(stack_home: Path) -> None:
    with _whole_stack(stack_home) as (process, descendants):
        assert len(descendants) > 3
        process.kill()
        wait_until(lambda: not alive(descendants), timeout_s=5, why="every process ended")


def test_a_stack_started_again_right_after_a_kill_has_its_rows(stack_home: Path) -> None:
    with _whole_stack(stack_home) as (process, _):
        conninfo = PostgresServer(stack_home / "postgres").url.replace("+psycopg", "")
        with psycopg.connect(conninfo, connect_timeout=5) as session:
            session.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()
    with _whole_stack(stack_home):
        conninfo = PostgresServer(stack_home / "postgres").url.replace("+psycopg", "")
        with psycopg.connect(conninfo, connect_timeout=5) as session:
            assert session.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_sigterm_ends_a_whole_stack_in_seconds(stack_home: Path) -> None:
    with _whole_stack(stack_home, stop_timeout_s=2.5) as (process, descendants):
        process.terminate()
        # One child had to be killed.
        assert process.wait(10) == 1
        assert alive(descendants) == []
    assert "database system is shut down" in (stack_home / "postgres.log").read_text()
    assert "bye bye" in (stack_home / "redis.log").read_text()


def test_a_second_ctrl_c_kills_at_once(stack_home: Path) -> None:
    with _whole_stack(stack_home, stop_timeout_s=60) as (process, descendants):
        process.send_signal(signal.SIGINT)
        wait_until((stack_home / "refused").exists, timeout_s=5, why="the stubborn child was asked to stop")
        process.send_signal(signal.SIGINT)
        assert process.wait(2) == 130
        wait_until(lambda: not alive(descendants), timeout_s=2, why="every process ended")


def test_a_second_ctrl_c_ends_a_callback_that_waits_for_a_server(home: Path) -> None:
    def waits_for_ever(_index: int) -> None:
        [server] = [c for c in psutil.Process().children() if _DEAF in c.cmdline()]
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: not alive([server]), timeout_s=2, why="the server was killed")
        raise psycopg.OperationalError("the server closed the connection unexpectedly")

    deaf = python_child("deaf", _DEAF, home=home)
    supervisor = Supervisor(stages=[[deaf]], say=print, on_stage_ready=waits_for_ever)
    assert supervisor.run(on_ready=_fail) == 130


def test_a_signal_that_the_starter_ignores_stays_ignored(home: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervisor = Supervisor(stages=[[obedient("a", home=home)]], say=print)
        still_running: list[bool] = []

        def second_turn() -> bool:
            still_running.append(supervisor.children()[0].ready)
            return len(still_running) == 2

        supervisor.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGHUP), until=second_turn)
        assert still_running == [True, True]
    finally:
        signal.signal(signal.SIGHUP, before)


def _kill_only_child(supervisor: Supervisor) -> None:
    [child] = supervisor.children()
    kill_child(child)


def _tell(home: Path) -> None:
    """Let the child end that `_ENDS_WHEN_TOLD` describes."""
    (home / "end").write_text("now")


def _fail() -> None:
    raise AssertionError("this must not be reached")


def _fail_in_stage(_index: int) -> None:
    _fail()


@contextlib.contextmanager
def _started(supervisor: Supervisor) -> Iterator[Supervisor]:
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


@contextlib.contextmanager
def _obedient_stages(home: Path, names: str, never_ready: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Yields a supervising process, for signals that would end this one if nobody heeded them."""
    argv = [sys.executable, "-m", "tests.pipeline.obedient_stages", str(home), names, never_ready]
    with subprocess.Popen(argv) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _whole_stack(
    home: Path, *, stop_timeout_s: float = 10
) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """Yields the supervising process and everything below it."""
    output = home / "output"
    argv = [sys.executable, "-m", "tests.pipeline.whole_stack", str(home), str(stop_timeout_s)]
    with output.open("wb") as sink, subprocess.Popen(argv, stdout=sink) as process:
        try:
            wait_until(lambda: output.read_bytes() or process.poll(), timeout_s=30, why="the stack is ready")
            assert output.read_text() == "ready\n"
            descendants = psutil.Process(process.pid).children(recursive=True)
            yield process, descendants
        finally:
            process.kill()
    wait_until(lambda: not alive(descendants), timeout_s=10, why="the stack ended")
