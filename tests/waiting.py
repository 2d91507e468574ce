"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_EVERY_S = 0.02


def wait_until(condition: Callable[[], object], *, timeout_s: float, why: str) -> None:
    """Return as soon as `condition()` is true. Raises AssertionError, quoting `why`, at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {why}")
        time.sleep(_LOOK_EVERY_S)
