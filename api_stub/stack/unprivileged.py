"""The user that Postgres runs as when we are root, and that user's way to its directories."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

from api_stub.stack.children import RunAs
from memory.errors import SettingsError

_USER_NAMES = ("postgres", "nobody")
# Directories of the system, never ours to open, whoever owns them.
_OF_THE_SYSTEM = frozenset(
    Path(name)
    for name in (
        *("/", "/root", "/home", "/tmp", "/etc", "/opt", "/srv", "/mnt", "/media", "/run", "/dev", "/data"),  # noqa: S108 - named, not used
        *("/usr", "/usr/local", "/usr/share", "/var", "/var/lib", "/var/tmp", "/var/opt"),  # noqa: S108 - the same
    )
)


def postgres_user() -> RunAs | None:
    """Return None unless we are root, whom Postgres refuses."""
    if os.geteuid() != 0:
        return None
    for name in _USER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(entry.pw_uid, entry.pw_gid)
    raise SettingsError(
        "Postgres refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as:"
        " create one, or set MEMORY_DB_URL to a Postgres that runs elsewhere"
    )


def open_the_way(directory: Path, *, user: RunAs) -> None:
    """Make `directory` and let `user` walk through it and its parent. Nobody may list what they hold.

    Raises SettingsError, before anything is made, when a directory above is closed and not ours to open.
    """
    ours = [path for path in (directory, directory.parent) if _is_ours(path)]
    _refuse_closed((path for path in directory.parents if path not in ours), user=user)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in ours:
        if not _is_searchable(path, user=user):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IXOTH)
    _refuse_closed((directory, *directory.parents), user=user)


def can_run(program: Path, *, user: RunAs) -> bool:
    """Say whether `user` may read and run the program and walk through every directory above it."""
    wanted = stat.S_IROTH | stat.S_IXOTH
    return program.stat().st_mode & wanted == wanted and all(
        _is_searchable(path, user=user) for path in program.resolve().parents
    )


def give_to(directory: Path, *, user: RunAs) -> None:
    """Make `user` the owner of the directory and of all below, where another one is."""
    if directory.stat().st_uid == user.uid:
        return
    for root, _, file_names in os.walk(directory):
        for path in (root, *(os.path.join(root, name) for name in file_names)):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _is_ours(path: Path) -> bool:
    if path in _OF_THE_SYSTEM or path == Path.home():
        return False
    return not path.exists() or path.stat().st_uid == 0


def _refuse_closed(paths: Iterable[Path], *, user: RunAs) -> None:
    for path in paths:
        if path.exists() and not _is_searchable(path, user=user):
            name = pwd.getpwuid(user.uid).pw_name
            raise SettingsError(
                f"{path} is closed to the user {name!r}, whom Postgres runs as because it refuses root:"
                " set MEMORY_HOME to a directory elsewhere, for example /var/lib/memory,"
                " or set MEMORY_DB_URL to a Postgres that runs elsewhere"
            )


def _is_searchable(path: Path, *, user: RunAs) -> bool:
    status = path.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
