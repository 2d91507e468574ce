"""A snapshot's manifest: what it was made of and for, and the checksums by which it is trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.errors import IndexRefused

if TYPE_CHECKING:
    from memory.models import Identity

FORMAT = 3
MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest. Raises IndexRefused where it cannot be trusted, or is of another format."""
    try:
        body, _, seal = (folder / MANIFEST).read_bytes().rpartition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != seal:
            message = f"{folder.name}: its manifest does not have its own checksum"
            raise IndexRefused(message)
        manifest = json.loads(body)
    except (OSError, ValueError) as error:
        message = f"{folder.name}: its manifest cannot be read ({error})"
        raise IndexRefused(message) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        message = f"{folder.name}: its manifest is of another format"
        raise IndexRefused(message)
    return manifest


def sealed(manifest: dict[str, Any]) -> bytes:
    """Return what is written of a manifest: JSON, and its checksum on a line of its own."""
    body = json.dumps(manifest, ensure_ascii=False).encode()
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode()


def check_identity(manifest: dict[str, Any], identity: Identity, folder: Path) -> None:
    """Refuse a snapshot whose vectors belong to something else. Raises IndexRefused."""
    if manifest["identity"] != asdict(identity):
        message = f"{folder.name}: made for {manifest['identity']}, this is {asdict(identity)}"
        raise IndexRefused(message)


def check_files(manifest: dict[str, Any], folder: Path) -> None:
    """Refuse a snapshot whose files are not those that were saved. Raises IndexRefused."""
    for file, expected in manifest["sha256"].items():
        try:
            found = sha256_of(folder / file)
        except OSError as error:
            message = f"{folder.name}: {file} cannot be read ({error})"
            raise IndexRefused(message) from error
        if found != expected:
            message = f"{folder.name}: {file} does not have the checksum of its manifest"
            raise IndexRefused(message)


def sha256_of(path: Path) -> str:
    """Return a file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
