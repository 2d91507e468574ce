"""What OpenAPI says of the HTTP API is true: schemathesis asks it in every way it can think of."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.doors.api import new_key, serving
from tests.pipeline.stack import running_up

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


def test_schemathesis_finds_no_fault() -> None:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        with running_up(home) as stack, serving(stack) as (url, _):
            for content in ("the vet", "the bill"):
                stack.memory("add", content)
            key = new_key(stack, scopes="read write admin", requests_a_minute=1_000_000)
            # The command of docs/api.md, with fewer examples.
            arguments = ["-H", f"Authorization: Bearer {key}", "--max-examples", "5", "--seed", "1"]
            done = subprocess.run(
                [sys.executable, "-c", SCHEMATHESIS, "run", f"{url}/openapi.json", *arguments],
                cwd=ROOT,
                env={**os.environ, "NO_COLOR": "1"},
                capture_output=True,
                text=True,
                timeout=280,
                check=False,
            )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "20 selected / 20 total" in done.stdout
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout.replace("\ufe0f", "").replace("  ", " "), phase
