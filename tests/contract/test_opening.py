"""Opening a database: made by many at once, and refused in words where it can never work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from memory.database import Database, known_revisions
from memory.errors import ServerAway, SettingsError
from memory.store.memories import MemoryStore

_OPEN_WHEN_TOLD = """
import sys
from memory.database import Database
print("ready", flush=True)
sys.stdin.readline()
database = Database(sys.argv[1])
database.upgrade()
print(database.revision())
"""
_OPEN_AS_NOBODY = """
import os, sys
from memory.database import Database
from memory.errors import MemorySystemError
Database("sqlite://").revision()  # imports what nobody may not: root's interpreter can be out of reach
database = Database(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)  # root may read and write everything
try:
    database.upgrade()
except MemorySystemError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_many_processes_may_make_the_same_database_at_once(new_url: str) -> None:
    processes = [_python(_OPEN_WHEN_TOLD, new_url) for _ in range(6)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60) == (f"{known_revisions()[-1]}\n", "")


def test_an_upgrade_says_where_it_came_from(new_url: str) -> None:
    database = Database(new_url)
    assert database.upgrade() is None
    assert database.upgrade() == known_revisions()[-1]
    database.close()


def test_a_database_of_a_newer_version_is_refused_untouched(database: Database, database_url: str) -> None:
    _set_revision(database, "9999")
    newer = Database(database_url)
    known = ", ".join(known_revisions())
    with pytest.raises(
        SettingsError,
        match=rf"^MEMORY_DB_URL = .*: the database is at revision 9999, of a newer version; "
        rf"this version knows {known}: run the newer one, or name another database$",
    ):
        newer.upgrade()
    assert newer.revision() == "9999"
    newer.close()


def _a_directory(home: Path) -> Path:
    (home / "m.db").mkdir()
    return home / "m.db"


def _a_text(home: Path) -> Path:
    (home / "m.db").write_text("no database\n" * 100)
    (home / "m.db").chmod(0o666)
    return home / "m.db"


def _a_damaged_file(home: Path) -> Path:
    file = _a_database(home)
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    file.write_bytes(content)
    return file


def _a_file_to_read_only(home: Path) -> Path:
    file = _a_database(home)
    file.chmod(0o444)
    return file


def _in_a_closed_directory(home: Path) -> Path:
    file = _a_database(home)
    home.chmod(0o555)
    return file


def _below_a_file(home: Path) -> Path:
    (home / "file").touch()
    return home / "file" / "deep" / "m.db"


def _below_a_closed_directory(home: Path) -> Path:
    home.chmod(0o555)
    return home / "deep" / "m.db"


def _a_database(home: Path) -> Path:
    database = Database(f"sqlite:///{home}/m.db")
    database.upgrade()
    database.close()
    (home / "m.db").chmod(0o666)
    return home / "m.db"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_a_directory, "{file} is a directory"),
        (_a_text, "{file} is not a SQLite database"),
        (_a_damaged_file, "{file} is a damaged SQLite database"),
        (_a_file_to_read_only, "this user may not both read and write {file}"),
        (_in_a_closed_directory, "this user may not write in {file.parent}, where SQLite keeps its log"),
        (_below_a_file, "directory {file.parent} cannot be made (Not a directory)"),
        (_below_a_closed_directory, "directory {file.parent} cannot be made (Permission denied)"),
    ],
)
def test_a_sqlite_file_that_can_never_work_is_refused_with_the_reason(
    home: Path, make: Callable[[Path], Path], reason: str
) -> None:
    place = home / "place"
    place.mkdir()
    place.chmod(0o777)
    file = make(place)
    process = _python(_OPEN_AS_NOBODY, f"sqlite:///{file}")
    said, errors = process.communicate(timeout=60)
    place.chmod(0o777)
    assert errors == ""
    assert said == (
        f"SettingsError: MEMORY_DB_URL = sqlite:///{file}: {reason.format(file=file)}; "
        "must be a SQLite file, or a new one, that this user may read and write, "
        "in a directory that it may write\n"
    )


def test_a_file_that_goes_bad_while_it_is_used_is_an_outage(home: Path) -> None:
    """A process at work must retry, and blame no memory; one that starts is refused."""
    file = _a_database(home)
    at_work = Database(f"sqlite:///{file}")
    at_work.upgrade()
    at_work.close()  # the next transaction connects anew
    file.write_text("no database\n" * 100)
    with pytest.raises(ServerAway, match="file is not a database"), at_work.write():
        pass
    with pytest.raises(SettingsError, match="is not a SQLite database"), Database(at_work.shown_url).write():
        pass
    at_work.close()


def test_opening_to_read_makes_no_directory(home: Path) -> None:
    database = Database(f"sqlite:///{home}/deep/m.db")
    with pytest.raises(SettingsError, match=f"there is no directory {home}/deep"):
        database.revision()
    assert not database.exists()
    assert list(home.iterdir()) == []


def _set_revision(database: Database, revision: str) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": revision})


def _python(source: str, argument: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", source, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def test_a_database_without_our_tables_is_said_to_lack_them(new_url: str) -> None:
    if new_url.startswith("sqlite:"):
        file = Path(new_url.removeprefix("sqlite:///"))
        file.parent.mkdir()
        file.touch()
    database = Database(new_url)
    with pytest.raises(SettingsError, match="lacks tables of this version; make them: memory db upgrade"):
        MemoryStore(database).counts()
    database.close()
