"""Stacks to measure: the product's own, or one with a model that costs nothing; homes that go or stay."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from api_stub.pipeline_client import PipelineClient
from benchmarks.rig.command import NotPossible, Report
from benchmarks.rig.texts import corpus_sentences
from benchmarks.rig.waiting import NotInTime, say
from benchmarks.running_stack import Stack, running
from benchmarks.synthetic_embedder import FILE, save_base
from indexer.app import load_model
from memory.database import Database
from memory.settings import read_settings
from memory.status import read_vitals
from memory.store.event_log import EventLog
from memory.store.lags import read_lags
from memory.stream_watch import StreamWatch
from memory.verdict import Vitals

Model = Literal["real", "null", "synthetic"]

_MODULES: Mapping[Model, tuple[str, ...]] = {
    "real": ("api_stub.commands.app", "up"),
    "null": ("benchmarks.null_stack", "up"),
    "synthetic": ("benchmarks.null_stack", "up", "--model", "synthetic"),
}
_WORDS = {"embed-1": "--name embed-1", "indexer": " indexer", "beat": "workers beat"}
_START_TIMEOUT_S = 600
_LONGEST_LOOK_S = 0.25
_VERIFY_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A running stack, a client of it, and a cheap look at what waits in it."""

    stack: Stack
    client: PipelineClient
    _database: Database
    _watch: StreamWatch

    def vitals(self) -> Vitals:
        """Look at what waits and what lags."""
        return read_vitals(self._database, self._watch)

    def snapshot_seq(self) -> int:
        """Return the newest event that is in a snapshot. Cheap, unlike a whole status."""
        return read_lags(self._database).snapshot_seq

    def epoch(self) -> int:
        """Return how often the index was taken over: once more when a new owner has it whole."""
        return EventLog(self._database).progress().epoch

    def n_unfinished(self) -> int:
        """Return how many memories are accepted and not searchable yet."""
        vitals = self.vitals()
        return vitals.waiting + vitals.events_behind

    def wait_until_searchable(self, *, n: int, timeout_s: float) -> None:
        """Wait until all that was enqueued is searchable; look seldom while much is left, often at the end.

        Raises:
            NotInTime: it was not, within `timeout_s`.

        """
        started = time.monotonic()
        while left := self.n_unfinished():
            spent_s = time.monotonic() - started
            if spent_s > timeout_s:
                raise NotInTime(f"{left:,} of {n:,} memories are not searchable after {timeout_s:g} s")
            expected_s = spent_s * left / max(1, n - left)
            time.sleep(min(_LONGEST_LOOK_S, max(0.002, expected_s / 10)))

    def require_equal(self, report: Report) -> None:
        """Make the run not valid where index and database differ."""
        say("comparing index and database")
        found = self.client.verify(timeout_s=_VERIFY_TIMEOUT_S)
        report.require(found["equal"], f"index and database differ: {found}")
        report.figures["index = database afterwards"] = found["equal"]


@contextlib.contextmanager
def running_measured(
    model: Model,
    *,
    home: Path | None = None,
    sqlite: bool = False,
    environment: Mapping[str, str] | None = None,
    n_embed_workers: int | None = None,
) -> Iterator[Measured]:
    """Run a stack until the end of the block.

    Args:
        model: `real` is `memory up` as it is; `null` and `synthetic` spare the embed workers the model.
        home: where it lives and what stays there; a directory that is removed afterwards where absent.
        sqlite: SQLite instead of the stack's own Postgres.
        environment: more settings.
        n_embed_workers: processes that embed; where absent as many as the stack starts by itself.

    Raises:
        NotPossible: a stack of another kind lives in `home`.
        StackFailed: it does not start.

    """
    with _place(home) as place:
        _claim(place, f"{model} {'sqlite' if sqlite else 'postgres'}")
        if model == "synthetic":
            _ensure_base(place)
        settings = {"MEMORY_DB_URL": f"sqlite:///{place}/memories.db"} if sqlite else {}
        workers = ("--embed-workers", str(n_embed_workers)) if n_embed_workers else ()
        say(f"starting a stack in {place}")
        with (
            running(
                place,
                (*_MODULES[model], *workers),
                words=_WORDS,
                environment={**settings, **(environment or {})},
                start_timeout_s=_START_TIMEOUT_S,
            ) as stack,
            contextlib.ExitStack() as closing,
        ):
            mine = stack.settings()
            client = closing.enter_context(PipelineClient(mine))
            database = Database(mine.database_url)
            closing.callback(database.close)
            watch = StreamWatch(mine.redis_database_url("ingest"))
            client.search("Is anybody there?", timeout_s=_START_TIMEOUT_S)  # loads the model for queries
            yield Measured(stack=stack, client=client, _database=database, _watch=watch)


@contextlib.contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Let these processes stand still until the end of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _place(home: Path | None) -> Iterator[Path]:
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711)
        yield home.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as name:
        Path(name).chmod(0o711)  # Postgres, which refuses to run as root, must come through
        yield Path(name)


def _claim(home: Path, kind: str) -> None:
    file = home / "benchmark.txt"
    if file.exists() and file.read_text() != kind:
        raise NotPossible(f"{home} holds a stack of the kind {file.read_text()!r}, not {kind!r}")
    if not file.exists() and any(home.iterdir()):
        raise NotPossible(f"{home} is not empty, and no benchmark made it")
    file.write_text(kind)


def _ensure_base(home: Path) -> None:
    """Embed the sample's sentences once with the real model, as the indexer loads it."""
    if (home / FILE).exists():
        return
    say("embedding the sample's sentences with the real model")
    model = load_model(read_settings(home=home))
    save_base(home, model.encode(list(corpus_sentences())), model.fingerprint)
