"""Settings: read once from the environment, validated, frozen, passed in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from memory.engine_choice import EngineName, Precision, problem_of_engine, problem_of_precision
from memory.errors import SettingsError
from memory.languages import DEFAULT_LANGUAGE, LANGUAGES
from memory.validation import MAX_CONTENT_BYTES

DB_SCHEMES = ("postgresql+psycopg", "postgresql", "sqlite")
REDIS_SCHEMES = ("redis", "rediss")
_PASSWORD = re.compile(r"(?<=://).*@|(?<=password=)[^&\s']*")


def default_home() -> Path:
    """Return where state lies by default: a place that survives, and that the current user may write."""
    if os.geteuid() == 0:
        return Path("/var/lib/memory")
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data_home) / "memory"


class Settings(BaseSettings):
    """Every setting. The environment variable is the alias; the description is the README's."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    def __repr__(self) -> str:
        """Name only the place: the URLs hold passwords."""
        return f"Settings(home={str(self.home)!r}, …)"

    __str__ = __repr__

    home: Path = Field(
        default_factory=default_home, alias="MEMORY_HOME", description="Directory that holds all local state."
    )
    db_url: str | None = Field(
        default=None,
        alias="MEMORY_DB_URL",
        description="`postgresql://…` or `sqlite:///…`. Absent: `memory up` runs its own Postgres, "
        "`MemoryManager` takes `sqlite:///memories.db`.",
    )
    redis_url: str | None = Field(
        default=None,
        alias="REDIS_URL",
        description="`redis://host:port/N`; uses databases N to N+2. Absent: `memory up` runs its own.",
    )
    api_key: str | None = Field(
        default=None,
        alias="MEMORY_API_KEY",
        description="What opens the HTTP API for `MemoryClient.from_url` and `memory mcp --url`.",
    )
    index_path: Path | None = Field(
        default=None,
        alias="FAISS_INDEX_PATH",
        description="Directory of the index snapshots. Absent: `index` under `MEMORY_HOME`; for "
        "`MemoryManager` `memories.faiss`, beside the SQLite file.",
    )
    embedding_model: str = Field(
        default="all-MiniLM-L6-v2",
        alias="EMBEDDING_MODEL",
        description="A sentence-transformers model: a name or a directory.",
    )
    use_gpu: bool = Field(
        default=False,
        alias="USE_GPU",
        description="Embed and search on the GPU; the start is refused where CUDA or faiss-gpu is missing.",
    )
    embedding_engine: EngineName = Field(
        default="auto",
        alias="EMBEDDING_ENGINE",
        description="What runs the model; `auto`: the fastest here with practically the same vectors.",
    )
    embedding_precision: Precision = Field(
        default="auto",
        alias="EMBEDDING_PRECISION",
        description="Of the model's arithmetic; `auto` likewise. `int8` is another model to a database: "
        "see `memory reembed`.",
    )
    embedding_cache: Path | None = Field(
        default=None,
        alias="EMBEDDING_CACHE",
        description="Directory of models prepared for OpenVINO. Absent: `models` under `MEMORY_HOME`.",
    )
    language: str = Field(
        default=DEFAULT_LANGUAGE,
        alias="MEMORY_LANGUAGE",
        description="Of what is remembered, where it is in Latin script: how its words are reduced to stems. "
        "Another one makes the index anew at the next start. `none`: words stay as they are.",
    )
    reranker: str | None = Field(
        default=None,
        alias="MEMORY_RERANKER",
        description="Cross-encoder for searches that ask to be reranked: a directory, or a name on the model "
        "hub, from where it is fetched at the first such search. Absent: no search can be.",
    )
    durability: Literal["redis", "fsync", "db"] = Field(
        default="redis",
        alias="MEMORY_DURABILITY",
        description="What `accepted` promises: see *What accepted means*.",
    )
    mode: Literal["development", "production"] = Field(
        default="development",
        alias="MEMORY_MODE",
        description="`production` refuses what is only there for tests.",
    )
    failpoints: Path | None = Field(
        default=None,
        alias="MEMORY_FAILPOINTS",
        description="For tests: a directory of failpoints; refused in production.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="MEMORY_LOG_LEVEL", description="Least severe log event that is written."
    )
    max_content_bytes: int = Field(
        default=32 * 1024,
        ge=1,
        le=MAX_CONTENT_BYTES,
        alias="MEMORY_MAX_CONTENT_BYTES",
        description="Largest memory accepted, in bytes of UTF-8.",
    )
    max_waiting: int = Field(
        default=1_000_000,
        ge=1,
        le=100_000_000,
        alias="MEMORY_MAX_WAITING",
        description="Bound of each ingest stream; past it producers get `QueueFull`.",
    )
    embed_batch: int = Field(
        default=512,
        ge=1,
        le=4096,
        alias="MEMORY_EMBED_BATCH",
        description="Memories read and committed together.",
    )
    embed_batch_tokens: int = Field(
        default=0,
        ge=0,
        le=1_048_576,
        alias="MEMORY_EMBED_BATCH_TOKENS",
        description="Word pieces in one pass through the model, padding included; 0: what is fastest.",
    )
    embed_workers: int = Field(
        default=0,
        ge=0,
        le=64,
        alias="MEMORY_EMBED_WORKERS",
        description="Processes of `memory up` that embed; 0: one a core, as far as the memory goes; one "
        "with `USE_GPU`.",
    )
    embed_threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        alias="MEMORY_EMBED_THREADS",
        description="Threads of an embed worker; 0: all cores, of `memory up` its share of them.",
    )
    drain_budget_s: float = Field(
        default=10,
        gt=0,
        le=60,
        alias="MEMORY_DRAIN_BUDGET_S",
        description="Longest that one drain task works.",
    )
    watchdog_s: float = Field(
        default=120,
        ge=1,
        le=3600,
        alias="MEMORY_WATCHDOG_S",
        description="A pass through the model or a transaction that takes this long hangs: the worker ends.",
    )
    max_deliveries: int = Field(
        default=5,
        ge=1,
        le=100,
        alias="MEMORY_MAX_DELIVERIES",
        description="Deliveries that may kill a worker before the memory becomes a dead letter.",
    )
    reclaim_after_s: float = Field(
        default=60,
        ge=1,
        le=3600,
        alias="MEMORY_RECLAIM_AFTER_S",
        description="Idle time after which another worker takes over an unacknowledged memory.",
    )
    tick_s: float = Field(
        default=2, ge=0.1, le=60, alias="MEMORY_TICK_S", description="Pace of the drain and index ticks."
    )
    maintenance_tick_s: float = Field(
        default=60,
        ge=0.5,
        le=3600,
        alias="MEMORY_MAINTENANCE_TICK_S",
        description="Pace of the look for due jobs.",
    )
    stuck_after_s: float = Field(
        default=60,
        ge=1,
        le=3600,
        alias="MEMORY_STUCK_AFTER_S",
        description="Without progress for so long, what waits is called `stuck`.",
    )
    audit_every_s: float = Field(
        default=3600,
        ge=1,
        le=31_536_000,
        alias="MEMORY_AUDIT_EVERY_S",
        description="Period of the audit of index, snapshots and rows.",
    )
    snapshot_every_s: float = Field(
        default=60,
        ge=1,
        le=86_400,
        alias="MEMORY_SNAPSHOT_EVERY_S",
        description="Longest between index snapshots.",
    )
    snapshot_every_events: int = Field(
        default=50_000,
        ge=1,
        le=10_000_000,
        alias="MEMORY_SNAPSHOT_EVERY_EVENTS",
        description="Index events after which a snapshot is due at once.",
    )
    search_timeout_s: float = Field(
        default=15, gt=0, le=600, alias="MEMORY_SEARCH_TIMEOUT_S", description="Longest that a search waits."
    )
    cleanup_every_s: float = Field(
        default=86_400,
        ge=1,
        le=31_536_000,
        alias="MEMORY_CLEANUP_EVERY_S",
        description="Period of the cleanup.",
    )
    cleanup_max_age_days: float = Field(
        default=30,
        ge=0,
        le=36_500,
        alias="MEMORY_CLEANUP_MAX_AGE_DAYS",
        description="Cleanup spares what is younger.",
    )
    cleanup_min_importance: float = Field(
        default=0.3,
        ge=0,
        le=1,
        alias="MEMORY_CLEANUP_MIN_IMPORTANCE",
        description="Cleanup spares what is at least this important.",
    )
    cleanup_brake_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        alias="MEMORY_CLEANUP_BRAKE_SHARE",
        description="Cleanup stops before it removes more than this share of a namespace…",
    )
    cleanup_brake_count: int = Field(
        default=1000,
        ge=0,
        le=1_000_000_000,
        alias="MEMORY_CLEANUP_BRAKE_COUNT",
        description="…and more than this many memories of it.",
    )

    @field_validator("db_url")
    @classmethod
    def _check_db_url(cls, value: str | None) -> str | None:
        url = _check_url(value, schemes=DB_SCHEMES)
        if url is None or not url.startswith("sqlite:"):
            return url
        if not url.startswith("sqlite:///") or ":memory:" in url or url == "sqlite:///":
            message = "sqlite:///path of a file (several processes share it)"
            raise ValueError(message)
        return f"sqlite:///{Path(url.removeprefix('sqlite:///')).absolute()}"

    @field_validator("home", "index_path", "failpoints", "embedding_cache")
    @classmethod
    def _check_path(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str | None) -> str | None:
        url = _check_url(value, schemes=REDIS_SCHEMES)
        if url is not None:
            _redis_number(url)
        return url

    @field_validator("embedding_model")
    @classmethod
    def _check_model_name(cls, value: str) -> str:
        if not value.strip():
            message = "a model's name or directory"
            raise ValueError(message)
        return value

    @field_validator("language")
    @classmethod
    def _check_language(cls, value: str) -> str:
        if value.lower() not in LANGUAGES:
            message = "one of " + ", ".join(LANGUAGES)
            raise ValueError(message)
        return value.lower()

    @field_validator("embedding_engine")
    @classmethod
    def _check_engine(cls, value: EngineName, info: ValidationInfo) -> EngineName:
        problem = problem_of_engine(value, use_gpu=info.data.get("use_gpu", False))
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("embedding_precision")
    @classmethod
    def _check_precision(cls, value: Precision, info: ValidationInfo) -> Precision:
        engine = info.data.get("embedding_engine", "auto")
        problem = problem_of_precision(value, engine, use_gpu=info.data.get("use_gpu", False))
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("failpoints")
    @classmethod
    def _check_failpoints(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("mode") == "production":
            message = "absent where MEMORY_MODE = production"
            raise ValueError(message)
        return value

    @property
    def index_directory(self) -> Path:
        """Where the index's snapshots and its lock lie."""
        return self.index_path or self.home / "index"

    @property
    def model_cache(self) -> Path:
        """Where prepared models lie."""
        return self.embedding_cache or self.home / "models"

    @property
    def database_url(self) -> str:
        """The database's URL, with the psycopg driver for Postgres."""
        if self.db_url is None:
            raise SettingsError("MEMORY_DB_URL is not set: postgresql://… or sqlite:///… is needed here")
        if self.db_url.startswith("postgresql://"):
            return self.db_url.replace("postgresql://", "postgresql+psycopg://", 1)
        return self.db_url

    def redis_database_url(self, purpose: Literal["broker", "results", "ingest"]) -> str:
        """Return the URL of the Redis database for `purpose`: N, N+1 and N+2 of REDIS_URL."""
        if self.redis_url is None:
            raise SettingsError("REDIS_URL is not set: redis://host:port is needed here")
        offset = ("broker", "results", "ingest").index(purpose)
        return urlsplit(self.redis_url)._replace(path=f"/{_redis_number(self.redis_url) + offset}").geturl()


def read_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides`, by field name, win over it.

    Raises:
        SettingsError: names each bad variable, its value and what is allowed.

    """
    try:
        return Settings(**{_alias(name): value for name, value in overrides.items()})
    except ValidationError as error:
        lines = [_say(problem) for problem in error.errors()]
        raise SettingsError("; ".join(lines)) from None


def _alias(name: str) -> str:
    if name not in Settings.model_fields:
        message = f"there is no setting {name!r}"
        raise SettingsError(message)
    return str(Settings.model_fields[name].alias)


def _say(problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    shown = _PASSWORD.sub("…", repr(problem["input"]))  # before it is cut: a cut could hide the @
    shown = shown if len(shown) <= 200 else f"{shown[:199]}…"
    said = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    bounds = _bounds(name)
    return f"{name} = {shown}: must be {bounds or said}"


def _bounds(alias: str) -> str | None:
    """Return the range of a number's setting in words, `None` for other settings."""
    for field in Settings.model_fields.values():
        limits = {type(limit): limit for limit in field.metadata}
        if field.alias == alias and Le in limits:
            kind = "a whole number" if field.annotation is int else "a number"
            low = f"{limits[Ge].ge} to" if Ge in limits else f"above {limits[Gt].gt} and up to"
            return f"{kind}, {low} {limits[Le].le}"
    return None


def _check_url(value: str | None, *, schemes: tuple[str, ...]) -> str | None:
    if value is not None and not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        message = " or ".join(f"{scheme}://…" for scheme in schemes)
        raise ValueError(message)
    return value


def _redis_number(url: str) -> int:
    """Return the database number in a Redis URL, 0 where there is none."""
    try:
        parts = urlsplit(url)
        host, _port, number = parts.hostname, parts.port, parts.path.strip("/")
        if host and (not number or number.isdecimal()):
            return int(number or 0)
    except ValueError:  # a port that is no number, or half an IPv6 address
        pass
    message = "redis://host:port or redis://host:port/N, with numbers"
    raise ValueError(message)
