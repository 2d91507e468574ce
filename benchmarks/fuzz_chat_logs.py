"""Spoils chat logs at random and reads them: whatever stands in them, only memories and flaws may come of it.

Anything else (another exception, a case of over 10 s or 3 GiB) is shown with the seed that makes it again,
and the run exits with 1. The logs are those of the readers' tests.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ingest.chat_logs.formats import READERS
from ingest.chat_logs.messages import Flaw
from ingest.inputs import ImportOptions, opened
from memory.errors import InvalidMemory
from memory.messages import RawMemory

GOLDEN = Path(__file__).parents[1] / "tests/unit/chat_logs/golden"
_LONGEST_CASE_S = 10
_MOST_MEMORY = 3 * 2**30  # of addresses, libraries included
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 1.5, "", "x", "\x00", "\ud800", "1e999999", [], [[]], {}, {"a": []},
    "9" * 5000, [None] * 100, "2020-01-01T00:00:00", "-62135596801", "2020-13-45", {"id": {"id": 1}},
)  # fmt: skip


class TooSlow(Exception):
    """A case took longer than any may."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first case; each next one has the next")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    n_cases, n_bad, started, told = 0, 0, time.monotonic(), 0.0
    while (seconds := time.monotonic() - started) < 60 * arguments.minutes:
        seed = arguments.seed + n_cases
        n_cases += 1
        if problem := run_case(seed):
            n_bad += 1
            print(f"--seed {seed}: {problem}", flush=True)
        if seconds - told >= 60:
            told = seconds
            print(f"{n_cases} cases, {n_bad} bad, {seconds:.0f} s", file=sys.stderr)
    print(f"{n_cases} cases, {n_bad} bad, from --seed {arguments.seed} on")
    sys.exit(1 if n_bad else 0)


def run_case(seed: int) -> str | None:
    """Make the case of this seed and read it; return what must not be, if it is."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="everkept-fuzz-") as folder:
        path = _spoilt(rng, Path(folder))
        forced = rng.choice([None, None, *(reader.name for reader in READERS)])
        try:
            with _deadline():
                _read(path, forced)
        except Exception:  # noqa: BLE001 (whatever it is, it must not be)
            return f"{path.name} --format {forced}\n{traceback.format_exc()}"
    return None


def _read(path: Path, as_format: str | None) -> None:
    options = ImportOptions(
        imported_at=datetime.now(UTC), format=as_format, include=("hidden", "system", "tool")
    )
    try:
        with opened(str(path), options) as (inputs, _):
            for source in inputs:
                for found in source.memories():
                    if not isinstance(found, RawMemory | Flaw):
                        raise TypeError(type(found))
    except InvalidMemory:
        pass  # nothing in it is known, and it was said


def _spoilt(rng: random.Random, folder: Path) -> Path:
    case = rng.choice(sorted(GOLDEN.glob("*/*")))
    [source] = case.glob("input*")
    files = {"/".join(p.relative_to(source).parts) or source.name: p for p in _files(source)}
    contents = {name: path.read_bytes() for name, path in files.items()}
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(sorted(contents))
        contents[name] = rng.choice(_SPOILERS)(rng, contents[name])
    if rng.random() < 0.3:
        return _zip(rng, folder / "log.zip", contents)
    for name, content in contents.items():
        (folder / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "log" / name).write_bytes(content)
    return folder / "log" / next(iter(contents)) if source.is_file() else folder / "log"


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())


def _zip(rng: random.Random, path: Path, contents: dict[str, bytes]) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(rng.choice(["", "", "../", "/", "a/"]) + name, content)
    whole = buffer.getvalue()
    path.write_bytes(_bytes_changed(rng, whole) if rng.random() < 0.7 else whole)
    return path


def _bytes_changed(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randint(0, len(content))]


def _part_repeated(rng: random.Random, content: bytes) -> bytes:
    start, end = sorted(rng.randint(0, len(content)) for _ in range(2))
    return content[:end] + content[start:end] * rng.choice([1, 2, 100]) + content[end:]


def _part_removed(rng: random.Random, content: bytes) -> bytes:
    start, end = sorted(rng.randint(0, len(content)) for _ in range(2))
    return content[:start] + content[end:]


def _spliced(rng: random.Random, content: bytes) -> bytes:
    others = sorted(path for path in GOLDEN.rglob("input*") if path.is_file())
    return _cut(rng, content) + _cut(rng, rng.choice(others).read_bytes())


def _otherwise_encoded(rng: random.Random, content: bytes) -> bytes:
    encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-16-le"])
    return content.decode(errors="replace").encode(encoding, errors="replace")


def _values_changed(rng: random.Random, content: bytes) -> bytes:
    """Put other values in the place of some, in JSON and in lines of JSON."""
    try:
        return json.dumps(_changed(rng, json.loads(content))).encode()
    except (ValueError, RecursionError):
        pass
    lines = content.split(b"\n")
    for _ in range(3):
        n = rng.randrange(len(lines))
        try:
            lines[n] = json.dumps(_changed(rng, json.loads(lines[n]))).encode()
        except (ValueError, RecursionError):
            lines[n] = rng.choice([b"", b"[" * 10_000, b'{"a":' * 10_000, b"\xff\xfe", lines[n] * 3])
    return b"\n".join(lines)


def _changed(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.05:
        return rng.choice(_VALUES)
    if isinstance(value, dict):
        return {key: _changed(rng, one) for key, one in value.items() if rng.random() > 0.02}
    return [_changed(rng, one) for one in value] if isinstance(value, list) else value


_SPOILERS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _bytes_changed,
    _cut,
    _part_repeated,
    _part_removed,
    _spliced,
    _otherwise_encoded,
    _values_changed,
    _values_changed,
    _values_changed,
)


@contextmanager
def _deadline() -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_CASE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
