"""What every test can ask for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the test's own, which any user may walk through but only its owner may list."""
    directory = Path(tempfile.mkdtemp(prefix="memory-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)
