"""What a bulk ingest pushes, counts and skips, for any state of the journal and of the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest import bulk as bulk_module
from ingest.bulk import BulkIngest
from ingest.chat_logs.messages import Flaw, Place
from ingest.inputs import Input
from ingest.journal import Journal
from memory.errors import QueueFull
from memory.messages import RawMemory, raw_memory
from memory.models import MemoryState, Outcome, Receipt

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Pipeline:
    """Where a producer pushes to, as far as an importer can see it: what is stored, and what waits."""

    def __init__(self) -> None:
        self.states: dict[str, MemoryState] = {}
        self.pushed: list[str] = []
        self.stores = True

    def push_patiently(self, raws: Sequence[RawMemory], *, patience_s: float) -> None:
        del patience_s
        self.pushed += [raw.uid for raw in raws]
        if self.stores:
            self.states.update((raw.uid, MemoryState.SEARCHABLE) for raw in raws)

    def outcomes(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        return [Outcome(receipt=r, state=self.states.get(r.uid, MemoryState.ACCEPTED)) for r in receipts]


def source(*uids: str, key: str = "file") -> Input:
    """An input of memories; a uid that begins with ! stands for a flaw."""

    def one(uid: str) -> RawMemory | Flaw:
        if uid.startswith("!"):
            return Flaw(place=Place(file="file", at=uid), reason="bad")
        return raw_memory("x", max_content_bytes=10, uid=uid, created_at=NOW)

    return Input(
        name="file",
        key=key,
        format="jsonl",
        reason="",
        n_bytes=1,
        memories=lambda: iter(map(one, uids)),
        n_read_bytes=lambda: 1,
    )


def ingest(pipeline: Pipeline, folder: Path, *uids: str, is_watched: bool = True) -> dict[str, Any]:
    """Run one import as the command does; return its counts and what it pushed."""
    bulk = BulkIngest(pipeline, outcomes=pipeline.outcomes, rejects=folder / "rejected")  # type: ignore[arg-type]
    journal = Journal(folder / "journal", "import")
    pipeline.pushed = []
    bulk.run([source(*uids)], journal, on_progress=lambda: None)
    if is_watched:
        bulk.follower.look()
        bulk.note_settled(journal)
    progress = bulk.report.files["file"].progress
    names = ("n_new", "n_known", "n_deleted", "n_rejected")
    return {"pushed": pipeline.pushed, **{name: getattr(progress, name) for name in names}}


def test_only_what_is_not_there_is_pushed(tmp_path: Path) -> None:
    pipeline = Pipeline()
    pipeline.states = {"b": MemoryState.STORED, "c": MemoryState.DELETED, "d": MemoryState.DEAD}
    assert ingest(pipeline, tmp_path, "a", "b", "!", "c", "d", "e") == {
        "pushed": ["a", "e"],
        "n_new": 2,
        "n_known": 2,
        "n_deleted": 1,
        "n_rejected": 1,
    }


def test_what_is_settled_is_neither_pushed_nor_counted_again(tmp_path: Path) -> None:
    pipeline = Pipeline()
    first = ingest(pipeline, tmp_path, "a", "!", "b")
    again = ingest(pipeline, tmp_path, "a", "!", "b", "c")
    assert again == {**first, "pushed": ["c"], "n_new": 3}


def test_what_was_counted_but_is_not_stored_is_pushed_again_and_not_counted_again(tmp_path: Path) -> None:
    pipeline = Pipeline()
    pipeline.stores = False  # killed before anything was stored
    first = ingest(pipeline, tmp_path, "a", "!", "b", is_watched=False)
    assert ingest(pipeline, tmp_path, "a", "!", "b") == first


def test_a_journal_of_another_database_is_not_believed(tmp_path: Path) -> None:
    first = ingest(Pipeline(), tmp_path, "a", "!", "b")
    assert ingest(Pipeline(), tmp_path, "a", "!", "b") == first


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1000, 1001])
def test_every_memory_is_pushed_once_whatever_the_chunks_are(tmp_path: Path, n: int) -> None:
    uids = [f"uid {i}" for i in range(n)]
    pipeline = Pipeline()
    half = ingest(pipeline, tmp_path, *uids[: n // 2])["pushed"]
    assert half + ingest(pipeline, tmp_path, *uids)["pushed"] == uids


def test_it_waits_while_very_many_are_on_their_way_and_says_so_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "MOST_UNSETTLED", 1)
    pipeline = Pipeline()
    pipeline.stores = False
    bulk = BulkIngest(
        pipeline,  # type: ignore[arg-type]
        outcomes=pipeline.outcomes,
        rejects=tmp_path / "rejected",
        patience_s=0.1,
    )
    journal = Journal(tmp_path, "import")
    bulk.run([source("a", key="1")], journal, on_progress=lambda: None)
    with pytest.raises(QueueFull, match="1 memories wait, and none has moved"):
        bulk.run([source("b", key="2")], journal, on_progress=lambda: None)
    assert pipeline.pushed == ["a"]
