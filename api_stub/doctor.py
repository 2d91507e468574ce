"""`memory doctor`: what this machine has, and whether the running stack is well."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from api_stub.home import connected_settings
from api_stub.pipeline_client import PipelineClient
from api_stub.stack.binaries import find_postgres, find_redis
from memory.errors import MemorySystemError
from memory.heartbeat import STALE_AFTER_S, Heartbeat
from memory.settings import Settings, read_settings
from memory.stream import IngestStream

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGES = (
    "celery",
    "redis",
    "SQLAlchemy",
    "psycopg",
    "sentence-transformers",
    "torch",
    "faiss-cpu",
    "numpy",
)
_LEAST_FREE_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check and what it found."""

    check: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Run every check; one that fails does not keep the others from running."""
    findings = [_try("python", lambda: f"{platform.python_version()} on {platform.platform()}")]
    findings += [_try(package, lambda p=package: _package(p)) for package in _PACKAGES]  # type: ignore[misc]
    findings.append(_try("settings", lambda: f"MEMORY_HOME = {read_settings().home}"))
    if not findings[-1].ok:
        return findings
    settings = read_settings()
    findings.append(_try("disk", lambda: _disk(settings)))
    if settings.redis_url is None:
        findings.append(_try("redis server", lambda: str(find_redis())))
    if settings.db_url is None:
        findings.append(_try("postgres server", lambda: str(find_postgres())))
    try:
        connected = connected_settings()
    except MemorySystemError as error:
        return [*findings, Finding(check="stack", ok=False, detail=str(error))]
    return [*findings, *_examine_stack(connected)]


def _examine_stack(settings: Settings) -> list[Finding]:
    findings = [_try("redis", lambda: _redis(settings)), _try("pipeline", lambda: _pipeline(settings))]
    heartbeats = settings.home / "heartbeats"
    names = sorted(path.name for path in heartbeats.iterdir()) if heartbeats.is_dir() else []
    return findings + [_alive(settings, name) for name in names]


def _alive(settings: Settings, name: str) -> Finding:
    age_s = Heartbeat(settings.home, name).age_s() or 0.0
    return Finding(check=name, ok=age_s < STALE_AFTER_S, detail=f"last turn of its loop {age_s:.1f} s ago")


def _try(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, ok=True, detail=look())
    except (MemorySystemError, PackageNotFoundError, OSError) as error:
        return Finding(check=check, ok=False, detail=str(error))


def _package(name: str) -> str:
    return version(name)


def _disk(settings: Settings) -> str:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < _LEAST_FREE_BYTES:
        message = f"only {free / 2**20:.0f} MiB free at {place}"
        raise OSError(message)
    return f"{free / 2**30:.0f} GiB free at {place}"


def _redis(settings: Settings) -> str:
    stream = IngestStream(settings.redis_database_url("ingest"), fsync=settings.durability == "fsync")
    warnings = stream.check_server()
    stream.close()
    if warnings:
        raise OSError("; ".join(warnings))
    return "reached; append-only, never evicts"


def _pipeline(settings: Settings) -> str:
    with PipelineClient(settings) as client:
        status = client.status()
    said = f"{status.verdict.state}: {status.verdict.reason}"
    if status.verdict.needs_a_look:
        raise OSError(said)
    return f"{said}; {status.searchable} of {status.accepted} accepted memories searchable"
