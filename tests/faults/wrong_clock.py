"""The null stack's processes with a wrong clock: `python -m tests.faults.wrong_clock SECONDS embed …`.

Celery asks `datetime` whether a message has expired, all else asks `time`: both are off by so many seconds.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, tzinfo

from celery.worker import request

from benchmarks.null_stack import main

_true_time = time.time


def put_off(by_s: float) -> None:
    """Let this process believe that it is so much later."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=by_s)

    time.time = lambda: _true_time() + by_s
    request.datetime = Later


if __name__ == "__main__":
    put_off(float(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
