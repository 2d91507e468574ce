"""What the client says of an outage goes to logging, where its program decides; never to standard output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from api_stub.pipeline_client import PipelineClient
from memory.database import Database
from memory.settings import read_settings

settings = read_settings(db_url=sys.argv[1], redis_url="redis://127.0.0.1:1", durability="db")
Database(settings.database_url).upgrade()
with PipelineClient(settings) as client:
    client.enqueue("accepted all the same")
"""


def test_a_program_that_does_not_configure_logging_is_told_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/memories.db"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
