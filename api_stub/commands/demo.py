"""`memory demo`: the whole pipeline on the sample conversation, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from api_stub.commands.ingest import run_ingest
from api_stub.commands.output import Exit, JsonOption, err, print_json
from api_stub.commands.stopping import tidy_up_when_stopped
from api_stub.home import connected_settings, running_stack
from api_stub.pipeline_client import PipelineClient
from api_stub.stack.children import ChildSpec, last_lines, spawn, stop
from memory.errors import NoStack
from memory.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory.models import SearchHit

NAMESPACE = "lighthouse"
QUESTIONS = (
    "How much did the vet charge for the dog's injured paw?",
    "Which nuts must she not eat?",
    "Why was the kayak trip called off?",
)
_START_TIMEOUT_S = 180
_STOP_TIMEOUT_S = 30


def demo(json: JsonOption = False) -> None:
    """Bring everything up in a fresh directory, ingest a sample chat, search it, stop, clean up.

    Example: memory demo --json
    """
    started = time.monotonic()
    tidy_up_when_stopped()
    with _fresh_home() as home, _stack(home):
        os.environ["MEMORY_HOME"] = str(home)
        result = _show_the_pipeline()
    result["seconds"] = round(time.monotonic() - started, 1)
    _say(f"\nstopped, nothing left running; {result['seconds']:.1f} s in all")
    if json:
        print_json(result)
    if result["accepted"] != result["searchable"] + result["dead"] or result["deleted"]["found_again"]:
        raise typer.Exit(Exit.PARTLY)


def _show_the_pipeline() -> dict[str, Any]:
    settings = connected_settings()
    with PipelineClient(settings) as client:
        sample = files("ingest") / "samples" / "lighthouse.jsonl"
        _say("\n[bold]Ingesting the sample conversation[/]: seven months of a chat, one memory a message")
        ingested = run_ingest(client, settings, [str(sample)])
        counts = client.status()
        _say(
            f"accepted {counts.accepted} · stored {counts.stored} · searchable {counts.searchable} · "
            f"dead letters {counts.dead}   ({ingested['per_second']:.0f} memories/s)"
        )
        answers = [_ask(client, question) for question in QUESTIONS]
        deleted = _forget(client, QUESTIONS[0])
        after = client.status()
        _say(
            f"now: stored {after.stored} · searchable {after.searchable} · deleted {after.deleted} · "
            f"dead letters {after.dead}"
        )
    return {
        "accepted": counts.accepted,
        "stored": counts.stored,
        "searchable": counts.searchable,
        "dead": counts.dead,
        "answers": answers,
        "deleted": deleted,
    }


def _ask(client: PipelineClient, question: str) -> dict[str, Any]:
    hits = client.search(question, namespace=NAMESPACE, limit=3)
    _say(f"\n[bold]{question}[/]")
    for hit in hits:
        memory = hit.memory
        _say(f"  {hit.score:.3f}  {memory.created_at:%Y-%m-%d}  {_author(hit)}: {escape(memory.content)}")
    return {
        "query": question,
        "results": [{"content": hit.memory.content, "score": round(hit.score, 4)} for hit in hits],
    }


def _forget(client: PipelineClient, question: str) -> dict[str, Any]:
    """Delete what answers the question best, and ask again."""
    best = client.search(question, namespace=NAMESPACE, limit=1)[0].memory
    _say(f"\n[bold]Deleting memory {best.id}[/]: {escape(best.content)}")
    seq = client.delete(best.id)
    hits = client.search(question, namespace=NAMESPACE, limit=10, min_seq=seq)
    found = any(hit.memory.id == best.id for hit in hits)
    _say(
        "the same question " + ("still finds it" if found else "no longer finds it; the best answer is now:")
    )
    _say(f"  {hits[0].score:.3f}  {_author(hits[0])}: {escape(hits[0].memory.content)}\n")
    return {"id": best.id, "content": best.content, "found_again": found}


def _author(hit: SearchHit) -> str:
    return escape(str(hit.memory.metadata.get("author", hit.memory.source)))


@contextmanager
def _fresh_home() -> Iterator[Path]:
    """Make a directory of its own under TMPDIR, whatever MEMORY_HOME says, and remove it at the end."""
    home = Path(tempfile.mkdtemp(prefix="memory-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextmanager
def _stack(home: Path) -> Iterator[None]:
    """Run `memory up` for this home until the end of the block, as a process of its own."""
    settings = read_settings()
    spec = ChildSpec(
        name="memory up",
        argv=(sys.executable, "-P", "-m", "api_stub.commands.app", "up"),
        env={"MEMORY_HOME": str(home), "TMPDIR": str(home)},  # torch leaves a directory there
        log_path=home / "up.log",
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGTERM,  # it has processes of its own to stop
    )
    _say(f"[bold]Starting[/] {_parts(settings.redis_url, settings.db_url)} in {home}")
    process = spawn(spec)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ((stack := running_stack(home)) and stack.ready):
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"the stack did not start:\n{last_lines(spec.log_path)}"
                raise NoStack(message)
            time.sleep(0.1)
        yield
    finally:
        stop(process, spec, timeout_s=_STOP_TIMEOUT_S)


def _parts(redis_url: str | None, db_url: str | None) -> str:
    servers = [] if redis_url else ["Redis"]
    servers += [] if db_url else ["Postgres"]
    return ", ".join([*servers, "embed worker, indexer and beat"])


def _say(line: str) -> None:
    err.print(line)
