"""Runs functions at the same time, and brings their errors back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def together(*functions: Callable[[], object]) -> None:
    """Run all of them at once, each in a thread of its own; raise the first error of any."""
    start = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        start.wait()
        function()

    with ThreadPoolExecutor(max_workers=len(functions)) as executor:
        for done in [executor.submit(run, function) for function in functions]:
            done.result()
