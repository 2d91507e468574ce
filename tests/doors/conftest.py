"""One running stack, and one HTTP API over it, for all tests of the doors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors.api import serving
from tests.pipeline.stack import Stack, running_up


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        with running_up(home) as running:
            yield running


@pytest.fixture(scope="package")
def url(stack: Stack) -> Iterator[str]:
    with serving(stack) as (url, _):
        yield url
