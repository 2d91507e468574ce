"""What the fault tests share: one running stack with a model that costs nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.null_stack import running_null_stack
from tests.pipeline.stack import Stack


@pytest.fixture(scope="package")
def null_stack() -> Iterator[Stack]:
    """One stack for many tests; each has a namespace of its own, and leaves the stack idle and whole."""
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        with running_null_stack(home) as stack:
            yield stack
