"""Settings: read from the environment, and refused at the start with variable, value and what is allowed."""

from __future__ import annotations

import os
from pathlib import Path

import annotated_types as at
import pytest
from pydantic import ValidationError

from memory.errors import SettingsError
from memory.settings import Settings, read_settings

ALIASES = {str(info.alias): name for name, info in Settings.model_fields.items()}
BOUNDS = [
    (str(info.alias), bound)
    for info in Settings.model_fields.values()
    for bound in info.metadata
    if isinstance(bound, at.Ge | at.Gt | at.Le)
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for alias in [*ALIASES, "XDG_DATA_HOME"]:
        monkeypatch.delenv(alias, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_the_ones_that_were_promised() -> None:
    settings = read_settings()
    assert settings.db_url is None
    assert settings.redis_url is None
    assert settings.embedding_model == "all-MiniLM-L6-v2"
    assert settings.use_gpu is False
    assert settings.durability == "redis"
    assert settings.max_content_bytes == 32 * 1024
    assert settings.cleanup_max_age_days == 30
    assert settings.cleanup_min_importance == 0.3
    assert settings.index_directory == settings.home / "index"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_variable_and_says_what_it_is(name: str) -> None:
    info = Settings.model_fields[name]
    assert info.alias
    assert info.alias == info.alias.upper()
    assert info.description
    assert len(info.description) > 10


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("USE_GPU", "True", "use_gpu", True),
        ("USE_GPU", "0", "use_gpu", False),
        ("EMBEDDING_MODEL", "/models/small", "embedding_model", "/models/small"),
        ("MEMORY_DURABILITY", "fsync", "durability", "fsync"),
        ("MEMORY_TICK_S", "0.1", "tick_s", 0.1),
        ("MEMORY_EMBED_BATCH", "4096", "embed_batch", 4096),
        ("FAISS_INDEX_PATH", "/i", "index_directory", Path("/i")),
        ("MEMORY_HOME", "/h", "index_directory", Path("/h/index")),
        ("REDIS_URL", "rediss://host:6380/7", "redis_url", "rediss://host:6380/7"),
        ("MEMORY_DB_URL", "", "db_url", None),
    ],
)
def test_a_variable_of_the_environment_is_really_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(read_settings(), field) == expected


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("USE_GPU", "maybe", "boolean"),
        ("MEMORY_DURABILITY", "disk", "'redis', 'fsync' or 'db'"),
        ("MEMORY_LOG_LEVEL", "loud", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("MEMORY_EMBED_BATCH", "many", "a whole number, 1 to 4096"),
        ("MEMORY_EMBED_BATCH", "1.5", "a whole number, 1 to 4096"),
        ("MEMORY_TICK_S", "soon", "number"),
        ("MEMORY_TICK_S", "nan", "a number, 0.1 to 60"),
        ("MEMORY_TICK_S", "inf", "a number, 0.1 to 60"),
        ("MEMORY_MAX_CONTENT_BYTES", "1048577", "a whole number, 1 to 1048576"),
        ("MEMORY_DB_URL", "mysql://host/db", "postgresql://… or sqlite://…"),
        ("MEMORY_DB_URL", "memories.db", "postgresql://… or sqlite://…"),
        ("MEMORY_DB_URL", "sqlite://", "sqlite:///path"),
        ("MEMORY_DB_URL", "sqlite:///", "sqlite:///path"),
        ("MEMORY_DB_URL", "sqlite:///:memory:", "sqlite:///path"),
        ("MEMORY_DB_URL", "sqlite:memories.db", "sqlite://…"),
        ("REDIS_URL", "localhost:6379", "redis://… or rediss://…"),
        ("REDIS_URL", "redis://host/first", "redis://host:port/N, with numbers"),
        ("REDIS_URL", "redis://host/-1", "redis://host:port/N, with numbers"),
        ("REDIS_URL", "redis://host/1/2", "redis://host:port/N, with numbers"),
    ],
)
def test_a_bad_value_is_refused_with_variable_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    message = str(refusal.value)
    assert message.startswith(f"{variable} = {value!r}: must be ")
    assert allowed in message


@pytest.mark.parametrize(("variable", "bound"), BOUNDS, ids=str)
def test_a_number_past_its_bound_is_refused_and_the_bound_itself_is_not(
    monkeypatch: pytest.MonkeyPatch, variable: str, bound: at.Ge | at.Gt | at.Le
) -> None:
    match bound:
        case at.Ge(ge=good):
            bad = good - 1
        case at.Gt(gt=bad):
            good = bad + 0.5
        case at.Le(le=good):
            bad = good + 1
    monkeypatch.setenv(variable, str(good))
    assert getattr(read_settings(), ALIASES[variable]) == good
    monkeypatch.setenv(variable, str(bad))
    with pytest.raises(SettingsError, match=rf"^{variable} = '{bad}': must be "):
        read_settings()


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_EMBED_BATCH", "0")
    monkeypatch.setenv("USE_GPU", "maybe")
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert "MEMORY_EMBED_BATCH = '0'" in str(refusal.value)
    assert "USE_GPU = 'maybe'" in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEMORY_DB_URL", "mysql://user:hunter2@host/db"),
        ("MEMORY_DB_URL", "postgres://user:hunter2@host/db"),
        ("REDIS_URL", "redis://:hunter2@host/x"),
        ("REDIS_URL", "http://user:hunter2@host"),
    ],
)
def test_a_refusal_never_shows_the_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert str(refusal.value).startswith(variable)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize("path", ["memories.db", "a/b.db"])
def test_a_relative_sqlite_file_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    monkeypatch.setenv("MEMORY_DB_URL", f"sqlite:///{path}")
    url = read_settings().database_url
    monkeypatch.chdir("/")
    assert url == f"sqlite:///{tmp_path / path}"


def test_an_absolute_sqlite_file_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_DB_URL", "sqlite:////data/memories.db")
    assert read_settings().database_url == "sqlite:////data/memories.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgres_is_reached_through_psycopg(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("MEMORY_DB_URL", f"{scheme}://user@host/db")
    assert read_settings().database_url == "postgresql+psycopg://user@host/db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", ["redis://host/0", "redis://host/1", "redis://host/2"]),
        ("redis://host:1/", ["redis://host:1/0", "redis://host:1/1", "redis://host:1/2"]),
        ("rediss://:pw@host/9", [f"rediss://:pw@host/{n}" for n in (9, 10, 11)]),
        ("redis://host/3?x=1", [f"redis://host/{n}?x=1" for n in (3, 4, 5)]),
    ],
)
def test_each_purpose_has_its_own_of_three_redis_databases(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: list[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    settings = read_settings()
    assert [settings.redis_database_url(p) for p in ("broker", "results", "ingest")] == expected


def test_a_server_that_was_never_named_is_asked_for_by_its_variable() -> None:
    settings = read_settings()
    with pytest.raises(SettingsError, match=r"^MEMORY_DB_URL is not set"):
        _ = settings.database_url
    with pytest.raises(SettingsError, match=r"^REDIS_URL is not set"):
        settings.redis_database_url("broker")


@pytest.mark.parametrize("variable", ["MEMORY_HOME", "FAISS_INDEX_PATH"])
@pytest.mark.parametrize(("value", "expected"), [("~/m", Path.home() / "m"), ("m", None)])
def test_a_directory_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, expected: Path | None
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(read_settings(), ALIASES[variable]) == (expected or tmp_path / value)


@pytest.mark.parametrize(
    ("user", "xdg", "expected"),
    [
        (0, "/xdg", Path("/var/lib/memory")),
        (1000, "/xdg", Path("/xdg/memory")),
        (1000, "", Path.home() / ".local/share/memory"),
    ],
)
def test_the_default_home_is_a_place_the_user_may_write(
    monkeypatch: pytest.MonkeyPatch, user: int, xdg: str, expected: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("XDG_DATA_HOME", xdg)
    assert read_settings().home == expected


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_EMBED_BATCH", "7")
    assert read_settings(embed_batch=9).embed_batch == 9


def test_settings_cannot_be_changed_once_read() -> None:
    settings = read_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.embed_batch = 9
