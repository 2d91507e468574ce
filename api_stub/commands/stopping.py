"""SIGTERM and SIGHUP end a command by an exception, so that what it started is stopped and tidied away."""

from __future__ import annotations

import signal
import sys


def tidy_up_when_stopped() -> None:
    """Let both signals raise SystemExit from here on, as Ctrl-C raises KeyboardInterrupt. Main thread only.

    A signal that our starter ignores (nohup, a job in the background of a script) stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)
