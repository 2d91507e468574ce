"""Every error this project raises, in one tree; the class decides the fate.

MemorySystemError
├── SettingsError           the start is refused
├── InvalidMemory           permanent: the producer is told, a queued one becomes a dead letter
├── NothingAccepted         every memory of a hand-over was refused
├── AccessDenied            a key of the HTTP API is unknown, revoked, or has no such scope
├── NotFound                no live memory has this id or uid
├── NotYetSearchable        the write asked for is not searchable yet; ask again
├── SearchUnavailable       nobody answered the query in time, or it cannot be answered
├── Recoverable             retry later with backoff; nothing is lost meanwhile
│   ├── QueueFull           the ingest stream is at its bound
│   ├── TooManyRequests     a key has made its requests of this minute
│   ├── ServerAway          Redis, the database or the HTTP API cannot be reached
│   └── SnapshotFailed      the disk did not take a snapshot of the index
├── IndexRefused            a snapshot that cannot be trusted; it is rebuilt from the database
├── Fenced                  another process owns the index now; this one must exit
├── IndexInUse              only the owner of the index may save it, and that is another process
├── ModelMismatch           stored vectors come from another model
├── CleanupBraked           a cleanup would remove suspiciously much
├── ChildNeverReady         a process of the local stack cannot get ready, or says that it cannot go on
├── NoStack                 no running stack was found
└── ManagerClosed           a call on a MemoryManager that was closed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class MemorySystemError(Exception):
    """Anything this project raises on purpose."""


class SettingsError(MemorySystemError):
    """A setting has a value that is not allowed. Names the variable, the value and what is allowed."""


class InvalidMemory(MemorySystemError):
    """A memory was refused. Names the field, the value and what is allowed."""

    def __init__(self, *, field: str, value: object, allowed: str) -> None:
        self.field = _storable(field)
        self.shown_value = _shorten(value)
        self.allowed = allowed
        super().__init__(f"{self.field} = {self.shown_value}: must be {allowed}")

    def within(self, place: str) -> InvalidMemory:
        """Return the same, said of one of many: `place` stands before the field."""
        error = InvalidMemory(field=f"{place}.{self.field}", value=None, allowed=self.allowed)
        error.shown_value = self.shown_value
        error.args = (f"{error.field} = {self.shown_value}: must be {self.allowed}",)
        return error


class NothingAccepted(MemorySystemError):
    """Every memory of a hand-over was refused. Has the reasons, by position."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        place, reason = next(iter(self.reasons.items()))
        super().__init__(f"memories[{place}]: {reason} (none of {len(self.reasons)} was accepted)")


class AccessDenied(MemorySystemError):
    """A key of the HTTP API is unknown or revoked, or may not do this."""


class NotFound(MemorySystemError):
    """No live memory has this id or uid."""


class NotYetSearchable(MemorySystemError):
    """The search asked to see a write that is not searchable yet. Ask again, or wait longer."""


class NoReranker(MemorySystemError):
    """A search asked for reranking, and no usable model is set."""


class SearchUnavailable(MemorySystemError):
    """Nobody answered the query in time, or the indexer cannot: it is down, starting, or of another model."""


class Recoverable(MemorySystemError):
    """Something is away for now. Trying again later is right, and nothing is lost meanwhile."""


class QueueFull(Recoverable):
    """The ingest stream is at its bound, or Redis is nearly out of memory. Try again in `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class TooManyRequests(Recoverable):
    """A key of the HTTP API has made its requests of this minute. Try again in `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class ServerAway(Recoverable):
    """Redis, the database or the HTTP API cannot be reached."""


class SnapshotFailed(Recoverable):
    """The disk did not take a snapshot of the index. The one before is still there, and searches go on."""


class IndexRefused(MemorySystemError):
    """A snapshot cannot be trusted (torn, altered, or made for other data). It is rebuilt instead."""


class Fenced(MemorySystemError):
    """Another process has taken over the index. This one must stop changing it and exit."""


class IndexInUse(MemorySystemError):
    """Another process owns the index and saves it. This one only follows the database."""


class ModelMismatch(MemorySystemError):
    """The database holds vectors of another embedding model than the one configured."""

    def __init__(self, *, stored: str | None, configured: str) -> None:
        super().__init__(
            f"the stored vectors come from {stored}, the configured model is {configured}: "
            "set EMBEDDING_MODEL (and EMBEDDING_PRECISION) back, or embed everything again with the new one: "
            "memory reembed"
        )


class CleanupBraked(MemorySystemError):
    """A cleanup would remove more of a namespace than the brake allows. Nothing was removed."""


class ChildNeverReady(MemorySystemError):
    """A process of the local stack cannot get ready, or says that it cannot go on. Quotes its log's end."""


class NoStack(MemorySystemError):
    """No running stack was found in MEMORY_HOME, and the environment names no servers."""


class ManagerClosed(MemorySystemError):
    """This MemoryManager was closed. Open another one."""


def _shorten(value: object, *, limit: int = 80) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of over 4300 digits, or nested too deep to be shown
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _storable(field: str, *, limit: int = 200) -> str:
    """Return the name of a field, which may be anything that came from outside, fit to print and store."""
    return ascii(field)[1 : limit + 1] if not field.isprintable() else field[:limit]
