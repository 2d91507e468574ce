"""The data directory of the local Postgres: made once, as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from api_stub.stack.binaries import PostgresBinaries, major_version
from api_stub.stack.children import ChildSpec, RunAs, exit_status, last_lines, spawn, stop
from api_stub.stack.kept import make_names_durable, write_private
from memory.errors import MemorySystemError, SettingsError

SUPERUSER = "memory"
_UNFINISHED = "unfinished-"
_INITDB_TIMEOUT_S = 120.0


def make_data(data: Path, *, binaries: PostgresBinaries, user: RunAs | None, password: str) -> None:
    """Run initdb beside `data`, then rename the result: a kill leaves nothing half made.

    Raises MemorySystemError, with the end of its log, when initdb fails.
    """
    for left_over in data.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    workplace = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=data.parent))
    password_file = workplace / "password"
    write_private(password_file, text=password)
    if user is not None:
        for path in (workplace, password_file):
            os.chown(path, user.uid, user.gid)
    try:
        _run_initdb(workplace / "data", binaries=binaries, user=user, log_path=data.parent / "initdb.log")
        (workplace / "data").rename(data)
        make_names_durable(data.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def refuse_other_version(data: Path, *, binaries: PostgresBinaries) -> None:
    """Raise SettingsError when another major version of Postgres wrote the data: it can't be read."""
    theirs = (data / "PG_VERSION").read_text().strip()
    ours = major_version(binaries)
    if theirs != ours:
        raise SettingsError(
            f"the data in {data} were written by Postgres {theirs},"
            f" but {binaries.postgres} is Postgres {ours}: install Postgres {theirs},"
            " choose the other one with MEMORY_SERVER_BINARIES (system, wheels),"
            " or set MEMORY_HOME to a new directory"
        )


def _run_initdb(data: Path, *, binaries: PostgresBinaries, user: RunAs | None, log_path: Path) -> None:
    spec = ChildSpec(
        name="initdb",
        argv=(
            str(binaries.initdb),
            f"--pgdata={data}",
            f"--username={SUPERUSER}",
            f"--pwfile={data.with_name('password')}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ),
        env={"LC_ALL": "C"},
        cwd=data.parent,
        run_as=user,
        log_path=log_path,
    )
    process = spawn(spec)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_INITDB_TIMEOUT_S)
    finally:
        stop(process, spec, timeout_s=0)
    if status := exit_status(process):
        raise MemorySystemError(f"initdb failed ({status}); the end of {log_path}:\n{last_lines(log_path)}")
