"""One watched child: ready or not yet, restarted with a growing pause when it dies."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from api_stub.stack.children import (
    ChildSpec,
    ask_to_stop,
    exit_status,
    kill,
    kill_without_waiting,
    last_lines,
    spawn,
)
from memory.errors import ChildNeverReady

_FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0
_LIVED_LONG_S = 30.0
_READY_AFTER_S = 0.5
_N_STARTS_AT_MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStatus:
    """What can be said of a child now. `pid` is None while it waits for its restart."""

    name: str
    pid: int | None
    n_restarts: int
    ready: bool


class WatchedChild:
    """A child and its fate. Every method returns at once; `turn` is called again and again."""

    def __init__(
        self,
        spec: ChildSpec,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self.spec = spec
        self.ready = False
        self._say = say
        self._clock = clock
        self._longest_pause_s = longest_pause_s
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready_once = False
        self._n_starts = 0
        self._n_failed_in_a_row = 0
        self._pause_s = _FIRST_PAUSE_S
        self._started_at_s = 0.0
        self._start_again_at_s = 0.0

    @property
    def status(self) -> ChildStatus:
        """The state at the last turn."""
        return ChildStatus(
            name=self.spec.name,
            pid=self._process.pid if self._process else None,
            n_restarts=max(0, self._n_starts - 1),
            ready=self.ready,
        )

    def turn(self) -> None:
        """Start it, see that it died, or see that it got ready.

        Raises:
            ChildNeverReady: it died five times in a row before it was ever ready, or it ended with EX_CONFIG.

        """
        if self._process is None:
            if self._clock() >= self._start_again_at_s:
                self._start()
        elif (status := exit_status(self._process)) is not None:
            self._ended(status)
        elif not self.ready:
            self._look_if_ready(self._process)

    def ask_to_stop(self) -> None:
        """Send the stop signal, if it runs."""
        if self._process is not None:
            ask_to_stop(self._process, self.spec)

    def is_running(self) -> bool:
        """Say whether its process is there."""
        return self._process is not None and exit_status(self._process) is None

    def finish(self) -> bool:
        """Kill it if it still runs, and forget the process. Returns whether it had ended by itself."""
        was_running = self.is_running()
        if self._process is not None:
            kill(self._process)
        self._process = None
        self.ready = False
        return not was_running

    def kill_without_waiting(self) -> None:
        """Kill it; a signal handler may call this. `finish` is still due."""
        if self._process is not None:
            kill_without_waiting(self._process)

    def _start(self) -> None:
        self._started_at_s = self._clock()
        self._n_starts += 1
        try:
            self._process = spawn(self.spec)
        except (OSError, subprocess.SubprocessError) as error:
            self._died(f"could not be started ({error})")

    def _look_if_ready(self, process: subprocess.Popen[bytes]) -> None:
        lived_s = self._clock() - self._started_at_s
        self.ready = self.spec.is_ready() if self.spec.is_ready else lived_s >= _READY_AFTER_S
        if self.ready:
            self._was_ready_once = True
            self._n_failed_in_a_row = 0
        elif lived_s > self.spec.start_timeout_s:
            kill(process)
            self._died(f"was not ready in {self.spec.start_timeout_s:g} s")

    def _ended(self, status: int) -> None:
        if status != os.EX_CONFIG:
            self._died(f"died ({_in_words(status)})")
            return
        self._process = None
        self.ready = False
        last_line = last_lines(self.spec.log_path, n_lines=1)
        raise ChildNeverReady(
            f"{self.spec.name} cannot go on, nor would starting it again help ({_in_words(status)});"
            f" the end of {self.spec.log_path}:\n{last_line}"
        )

    def _died(self, what: str) -> None:
        self._n_failed_in_a_row += not self.ready
        self._process = None
        if not self._was_ready_once and self._n_failed_in_a_row >= _N_STARTS_AT_MOST:
            raise ChildNeverReady(
                f"{self.spec.name} {what} at the start, {self._n_failed_in_a_row} times in a row;"
                f" the end of {self.spec.log_path}:\n{last_lines(self.spec.log_path)}"
            )
        if self.ready and self._clock() - self._started_at_s >= _LIVED_LONG_S:
            self._pause_s = _FIRST_PAUSE_S
        self.ready = False
        self._say(f"{self.spec.name} {what}, restarting in {self._pause_s:g} s")
        self._start_again_at_s = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._longest_pause_s)


def _in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit code {status}"
