"""How far an import has come: a file of lines, so that the same command goes on where it was killed.

Nothing depends on it being there, or whole: whatever is read again is looked up before it is pushed. It saves
the second reading, and keeps the counts right over several runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from memory.models import MemoryState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from memory.messages import RawMemory

MOST_LINES = 10_000
"""Then a journal is written anew, with the last line of each input."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far one input has come. Mutable: it grows while it is read.

    `n_read` counts memories and flaws in the order of the input, and is written before they are pushed;
    `n_settled` is the part of them that is stored, or never will be: nothing before it is pushed again.
    """

    n_read: int = 0
    n_settled: int = 0
    settled_uid: tuple[str, str] | None = None  # (namespace, uid) of one of these: is it there, so are they
    n_new: int = 0
    n_known: int = 0
    n_deleted: int = 0
    n_rejected: int = 0
    oldest: str | None = None  # ISO 8601, UTC
    newest: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote. Raises TypeError or KeyError for anything else."""
        known = {field.name: data[field.name] for field in fields(cls)}
        uid = known["settled_uid"]
        return cls(**{**known, "settled_uid": None if uid is None else (str(uid[0]), str(uid[1]))})

    def count(self, memory: RawMemory, state: MemoryState) -> None:
        """Count a memory that was found in this state before it was pushed."""
        match state:
            case MemoryState.ACCEPTED:
                self.n_new += 1
            case MemoryState.DELETED:
                self.n_deleted += 1
            case _:
                self.n_known += 1
        date = memory.created_at.isoformat()
        self.oldest = min(self.oldest or date, date)
        self.newest = max(self.newest or date, date)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


class Journal:
    """One line for each step of any input; the last one counts.

    Args:
        folder: where journals are.
        name: of the import: the same for the same command.

    """

    def __init__(self, folder: Path, name: str) -> None:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:24]
        self._path = folder / f"{digest}.jsonl"
        self._n_lines = 0  # since it was opened
        self._last = self._read()

    def of(self, key: str) -> Progress:
        """Return how far an input has come; a new start if this journal does not know it."""
        return self._last.get(key) or Progress()

    def note(self, key: str, progress: Progress) -> None:
        """Write how far it has come."""
        self._last[key] = progress
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._n_lines += 1
        if self._n_lines > MOST_LINES:
            self._compact()
        else:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(key, progress))

    def close(self) -> None:
        """Forget all: everything is settled."""
        self._last.clear()
        self._path.unlink(missing_ok=True)

    def _compact(self) -> None:
        """Keep one line for each input."""
        whole = self._path.with_suffix(".new")
        whole.write_text("".join(_line(*last) for last in self._last.items()), encoding="utf-8")
        whole.replace(self._path)
        self._n_lines = 0

    def _read(self) -> dict[str, Progress]:
        last: dict[str, Progress] = {}
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return last
        for line in lines:
            try:
                data = json.loads(line)
                last[data["input"]] = Progress.from_json(data)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                continue  # torn by a kill: an earlier line counts
        return last


def _line(key: str, progress: Progress) -> str:
    return json.dumps({"input": key, **progress.as_json()}) + "\n"
