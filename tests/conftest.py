"""What every test can ask for."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the test's own, which any user may walk through but only its owner may list."""
    with _new_home() as directory:
        yield directory


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """The same for all tests of a file, for what takes long to make."""
    with _new_home() as directory:
        yield directory


@contextlib.contextmanager
def _new_home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="memory-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
