"""`memory db` as a process: it needs the database alone, and only `upgrade` changes it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import text

from api_stub.home import RunningStack, announce, hold_home
from memory.database import Database, known_revisions, migrations_config
from tests.pipeline.stack import MEMORY

NEWEST = known_revisions()[-1]


def test_the_revision_is_shown_brought_to_the_newest_and_shown_again(home: Path, new_url: str) -> None:
    at_first = "missing" if new_url.startswith("sqlite") else "empty"
    before = _json("current", home=home, url=new_url, expect=1)
    assert (before["state"], before["revision"]) == (at_first, None)
    assert (before["newest"], before["upgrade_due"]) == (NEWEST, True)
    assert not (home / "new").exists(), "current makes nothing"
    upgraded = _json("upgrade", home=home, url=new_url)
    assert (upgraded["from"], upgraded["to"]) == (None, NEWEST)
    again = _json("upgrade", home=home, url=new_url)
    assert (again["from"], again["to"]) == (NEWEST, NEWEST)
    after = _json("current", home=home, url=new_url)
    assert (after["state"], after["revision"]) == ("current", NEWEST)
    assert (after["newest"], after["upgrade_due"]) == (NEWEST, False)


def test_a_database_of_an_older_version_is_upgraded_from_there(home: Path, new_url: str) -> None:
    _make(new_url, home=home, revision=known_revisions()[0])
    assert _json("current", home=home, url=new_url, expect=1)["state"] == "behind"
    said = _memory("upgrade", home=home, url=new_url).stdout
    assert f"upgraded from {known_revisions()[0]} to {NEWEST}" in said


def test_a_database_of_a_newer_version_is_shown_and_left_alone(home: Path, new_url: str) -> None:
    _make(new_url, home=home, revision=NEWEST)
    database = Database(new_url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    shown = _json("current", home=home, url=new_url, expect=1)
    assert (shown["state"], shown["revision"], shown["upgrade_due"]) == ("newer", "9999", False)
    refused = _memory("upgrade", home=home, url=new_url, expect=6).stderr
    assert "is at revision 9999, of a newer version" in refused
    assert database.revision() == "9999"
    database.close()


def test_a_missing_file_is_named_and_not_made(home: Path) -> None:
    said = _memory("current", home=home, url=f"sqlite:///{home}/memories.db", expect=1).stdout
    assert f"{home}/memories.db: there is no such file yet: `memory db upgrade` makes it" in said
    assert list(home.iterdir()) == []


def test_without_a_url_it_is_the_database_of_the_running_stack(home: Path, new_url: str) -> None:
    nobody = _memory("current", home=home, expect=3).stderr
    assert "MEMORY_DB_URL is not set, and no stack runs in MEMORY_HOME" in nobody
    with hold_home(home):
        no_redis = "redis://127.0.0.1:1/0"
        announce(home, RunningStack(pid=os.getpid(), redis_url=no_redis, db_url=new_url, ready=False))
        assert _json("upgrade", home=home)["to"] == NEWEST
        assert _json("current", home=home)["state"] == "current"


def test_a_database_that_is_away_is_said_so_without_its_password(home: Path) -> None:
    said = _memory("current", home=home, url="postgresql://me:secret@127.0.0.1:1/memory", expect=3).stderr
    assert "127.0.0.1:1/memory" in said
    assert "secret" not in said


def _make(url: str, *, home: Path, revision: str) -> None:
    """Make the tables as they were at a revision."""
    (home / "new").mkdir()
    database = Database(url)
    config = migrations_config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    database.close()


def _json(name: str, *, home: Path, url: str | None = None, expect: int = 0) -> Any:
    return json.loads(_memory(name, "--json", home=home, url=url, expect=expect).stdout)


def _memory(
    *arguments: str, home: Path, url: str | None = None, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEMORY_", "REDIS_", "FAISS_"))}
    given = {"MEMORY_HOME": str(home), **({"MEMORY_DB_URL": url} if url else {})}
    done = subprocess.run(
        [*MEMORY, "db", *arguments],
        env={**inherited, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
    return done
