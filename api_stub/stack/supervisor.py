"""The supervisor: starts children stage by stage, restarts what dies, stops all in reverse order."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from api_stub.stack.children import ChildSpec
from api_stub.stack.watched import LONGEST_PAUSE_S, ChildStatus, WatchedChild

_TURN_S = 0.05
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Children in stages: one is started when all of the stages before are ready.

    `on_stage_ready(index)` runs after each stage, counted from 0, the last one included. `run` is the whole
    life of a stack in one call; `start`, `poll` and `stop` are its parts, for a stack inside another program.
    Call all of them from one thread: the kernel ends the children when the thread that started them ends.

    A child that dies is started again, unless it ends with EX_CONFIG, by which it says that this cannot help:
    then ChildNeverReady, which quotes the last line of its log, ends the whole stack. One that dies again and
    again waits for its start twice as long each time, at most `longest_pause_s`.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Sequence[ChildSpec]],
        say: Callable[[str], None],
        on_stage_ready: Callable[[int], None] | None = None,
        stop_timeout_s: float = 10.0,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._stages = [
            [WatchedChild(spec, say=self._say_safely, longest_pause_s=longest_pause_s) for spec in stage]
            for stage in stages
        ]
        self._n_stages_started = 0
        self._say = say
        self._on_stage_ready = on_stage_ready
        self._stop_timeout_s = stop_timeout_s
        self._signals: list[int] = []

    def run(self, *, on_ready: Callable[[], None], until: Callable[[], bool] | None = None) -> int:
        """Start, watch, and stop at SIGINT, SIGTERM or SIGHUP, or when `until` says so. Main thread only.

        Returns 0 when every child stopped in time, 1 when one had to be killed, 130 when a second Ctrl-C
        killed them all. Raises ChildNeverReady, and what the callbacks raise, after all have been stopped.
        """
        with self._noting_signals():
            clean = False
            try:
                if self.start():
                    on_ready()
                while not (self._signals or (until and until())):
                    self.poll()
                    self._wait()
            except Exception:
                # A callback fails when the servers are killed under it; then that was the wish.
                if not self._must_kill:
                    raise
            finally:
                clean = self.stop()
            if self._must_kill:
                return 128 + signal.SIGINT
            return 0 if clean else 1

    def start(self) -> bool:
        """Start every stage; all are stopped again on an error. Returns False when a signal asked to stop.

        Raises ChildNeverReady when a child died five times in a row before it was ever ready, or ended with
        EX_CONFIG.
        """
        try:
            for index in range(len(self._stages)):
                self._n_stages_started = index + 1
                if not self._bring_up():
                    return False
                if self._on_stage_ready is not None:
                    self._on_stage_ready(index)
        except BaseException:
            self.stop()
            raise
        return not self._signals

    def poll(self) -> None:
        """Take one turn of watching: see what died, restart what is due. Call it some times a second.

        Raises ChildNeverReady when a child ended with EX_CONFIG.
        """
        for child in self._started():
            child.turn()

    def stop(self) -> bool:
        """Stop every stage, the last one first. Returns whether no child had to be killed."""
        clean = True
        try:
            for stage in reversed(self._stages[: self._n_stages_started]):
                clean = self._stop_stage(stage) and clean
        finally:
            self._kill_all()
            self._n_stages_started = 0
        return clean

    def children(self) -> list[ChildStatus]:
        """Return the state of every child, in the order of the stages."""
        return [child.status for stage in self._stages for child in stage]

    @property
    def _must_kill(self) -> bool:
        """Ctrl-C while it was stopping already. SIGTERM and SIGHUP often come twice and mean no haste."""
        return signal.SIGINT in self._signals[1:]

    def _started(self) -> list[WatchedChild]:
        return [child for stage in self._stages[: self._n_stages_started] for child in stage]

    def _bring_up(self) -> bool:
        while not self._signals:
            self.poll()
            if all(child.ready for child in self._started()):
                return True
            self._wait()
        return False

    def _stop_stage(self, stage: Sequence[WatchedChild]) -> bool:
        for child in stage:
            child.ask_to_stop()
        deadline = time.monotonic() + self._stop_timeout_s
        while any(child.is_running() for child in stage):
            if self._must_kill or time.monotonic() >= deadline:
                break
            self._wait()
        ended_themselves = [child.finish() for child in stage]
        return all(ended_themselves)

    def _kill_all(self) -> None:
        for child in self._started():
            child.finish()

    def _wait(self) -> None:
        time.sleep(_TURN_S)

    def _say_safely(self, line: str) -> None:
        # A terminal that has gone away must keep nobody from stopping the children.
        with contextlib.suppress(OSError):
            self._say(line)

    @contextlib.contextmanager
    def _noting_signals(self) -> Iterator[None]:
        self._signals.clear()
        # What our starter ignores (nohup, a job in the background of a script) stays ignored.
        heeded = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note_signal) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        if self._must_kill:
            # Here and not in the loop: a callback may be waiting for a server that no longer answers.
            for child in self._started():
                child.kill_without_waiting()
