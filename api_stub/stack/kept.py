"""Private files of a server that stay the same from one start to the next: its port and its password."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

# Below the range the kernel takes outgoing ports from: there, a client that knocks on the port of a server
# which is just restarting can end up connected to itself, and hold the port.
_PORTS = range(20000, 30000)
_N_TRIES = 200


def kept_port(path: Path) -> int:
    """Return the port kept in `path` while it is free on 127.0.0.1, else a new one, kept from now on."""
    if path.exists() and _is_free(port := int(path.read_text())):
        return port
    port = _find_free_port()
    write_private(path, text=f"{port}\n")
    return port


def kept_password(path: Path) -> str:
    """Return the password kept in `path`, made at random the first time. Safe in a URL and in quotes."""
    if not path.exists():
        write_private(path, text=f"{secrets.token_hex(24)}\n")
    return path.read_text().strip()


def write_private(path: Path, *, text: str) -> None:
    """Replace the file as a whole, durably, readable by its owner alone."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with open(
        os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    make_names_durable(path.parent)


def make_names_durable(directory: Path) -> None:
    """Flush a directory, so that a file just renamed there keeps its new name after a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _find_free_port() -> int:
    for _ in range(_N_TRIES):
        if _is_free(port := secrets.choice(_PORTS)):
            return port
    raise OSError(f"no free TCP port found on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of the last run still in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
