"""Erasure on a whole running stack: while workers work, and down to the disk."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memory.errors import NotFound
from memory.models import MemoryState
from tests.pipeline.stack import Stack, running_up
from tests.waiting import wait_until

SETTINGS = {"MEMORY_SNAPSHOT_EVERY_S": "1"}


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        database = {"MEMORY_DB_URL": f"sqlite:///{home}/memories.db"} if request.param == "sqlite" else {}
        with running_up(home, **SETTINGS, **database) as running:
            yield running


def test_a_counted_namespace_is_erased_by_the_command_down_to_the_snapshots_and_the_quarantine(
    stack: Stack,
) -> None:
    with stack.client() as client:
        receipts = client.enqueue_many(
            {"content": f"Recipe {i}: saffron and salt", "namespace": "cook", "source": "book"}
            for i in range(120)
        )
        others = client.enqueue_many({"content": f"Song {i}", "namespace": "music"} for i in range(5))
        outcomes = client.wait([*receipts, *others], timeout_s=60)
        assert {o.state for o in outcomes} == {MemoryState.SEARCHABLE}
        ids = {o.id for o in outcomes[:120]}
        wait_until(lambda: ids & _ids_on_disk(stack), timeout_s=20, why="a snapshot holds them")
        refused = stack.home / "index" / "quarantine" / "refused"
        refused.mkdir(parents=True)
        (refused / "vectors.faiss").write_bytes(b"vectors")

        counted = stack.json("erase", "--namespace", "cook")
        assert counted["dry_run"]
        assert counted["remaining"]["rows"] == 120
        assert client.status().stored >= 125

        receipt = stack.json("erase", "--namespace", "cook", "--apply")
        assert receipt["complete"]
        assert receipt["selector"] == {"namespace": "cook", "source": None, "ids": []}
        assert (receipt["n_erased"], receipt["n_searches"], receipt["n_quarantined"]) == (120, 100, 1)
        assert set(receipt["remaining"].values()) == {0}
        assert client.search("recipe with salt", namespace="cook", min_seq=receipt["seq"]) == []
        with pytest.raises(NotFound):
            client.get(min(i for i in ids if i))
        assert len(_snapshots(stack)) == 2
        assert not ids & _ids_on_disk(stack)
        assert not refused.exists()
        assert len(client.search("song", namespace="music", limit=10)) == 5
        assert client.verify()["equal"]
        assert {o.state for o in client.outcomes(list(receipts))} == {MemoryState.DELETED}
    wait_until(lambda: not _holds(stack.home / "redis", b"saffron"), timeout_s=20, why="Redis let go of it")


def test_what_is_still_on_its_way_is_erased_while_the_workers_work(stack: Stack) -> None:
    with stack.client() as client:
        receipts = client.enqueue_many(
            {"content": f"Rumour number {i}", "namespace": "rumours", "source": "gossip"} for i in range(1500)
        )
        receipt = client.erase(source="gossip", dry_run=False)
        assert receipt.complete
        assert receipt.n_entries > 0
        assert {o.state for o in client.wait(receipts, timeout_s=30)} == {MemoryState.DELETED}
        later = client.enqueue("A rumour of later", namespace="rumours", source="gossip")
        assert client.wait(later, timeout_s=30).state is MemoryState.SEARCHABLE
        assert [h.memory.content for h in client.search("rumour", namespace="rumours")] == [
            "A rumour of later"
        ]
        wait_until(lambda: client.status().waiting == 0, timeout_s=10, why="the streams are empty")
        assert client.verify()["equal"]


def test_single_memories_are_erased_by_their_numbers(stack: Stack) -> None:
    with stack.client() as client:
        receipts = client.enqueue_many({"content": f"Note {i}", "namespace": "notes"} for i in range(3))
        one, two, three = (outcome.id for outcome in client.wait(receipts, timeout_s=30))
        shown = stack.memory("erase", "--id", str(one), "--id", str(two), "--apply").stdout
        assert "erased 2 memories" in shown
        assert "searched for 2 of them by their own words" in shown
        assert "left: rows 0 · streams 0 · dead letters 0 · results 0 · index 0 · snapshots 0" in shown
        assert "\ncomplete, " in shown
        assert [h.memory.id for h in client.search("note", namespace="notes")] == [three]
        again = stack.json("erase", "--id", str(one), "--id", str(two), "--apply")
        assert (again["complete"], again["n_erased"]) == (True, 0)


def test_nothing_that_matches_gives_a_complete_receipt_of_zeros(stack: Stack) -> None:
    receipt = stack.json("erase", "--source", "nowhere", "--apply")
    assert receipt["complete"]
    assert not any(n for name, n in receipt.items() if name.startswith("n_"))
    assert "would erase: rows 0 · streams 0" in stack.memory("erase", "--source", "nowhere").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "selector = None: must be a namespace, a source, or ids"),
        (("--apply",), "selector = None: must be a namespace, a source, or ids"),
        (("--id", "1", "--namespace", "x"), "must be alone: without a namespace and a source"),
        (("--id", "1", "--source", "x"), "must be alone: without a namespace and a source"),
        (("--id", "0"), "id = 0: must be a whole number"),
        (("--id", "one"), "Invalid value for '--id'"),
        (("--namespace", ""), "namespace = '': must be text that is not blank"),
    ],
)
def test_a_bad_choice_is_refused_and_named(stack: Stack, arguments: tuple[str, ...], message: str) -> None:
    assert message in stack.memory("erase", *arguments, expect=2).stderr


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_receipt_that_shows_something_left_exits_with_one(stack: Stack) -> None:
    stack.redis("ingest").xadd("mem:in:fast", {"m": b'{"v":1,"uid":"x","namespace":"stuck","content":""}'})
    with stack.client() as client:
        wait_until(client.dead_letters, timeout_s=20, why="it is a dead letter")
    connection = sqlite3.connect(stack.home / "memories.db", timeout=30, isolation_level=None)
    connection.execute("CREATE TRIGGER keep BEFORE DELETE ON dead_letters BEGIN SELECT RAISE(IGNORE); END")
    try:
        receipt = stack.json("erase", "--namespace", "stuck", "--apply", expect=1)
        assert (receipt["complete"], receipt["remaining"]["dead_letters"]) == (False, 1)
        assert "NOT COMPLETE" in stack.memory("erase", "-n", "stuck", "--apply", expect=1).stdout
    finally:
        connection.execute("DROP TRIGGER keep")
        connection.close()
    assert stack.json("erase", "--namespace", "stuck", "--apply")["n_dead_letters"] == 1


def _snapshots(stack: Stack) -> list[Path]:
    return sorted((stack.home / "index" / "snapshots").iterdir())


def _ids_on_disk(stack: Stack) -> set[int]:
    """Every id in any snapshot's catalogue, read past every door; one may vanish as it is read."""
    found: set[int] = set()
    for folder in _snapshots(stack):
        try:
            with np.load(folder / "catalogue.npz") as columns:
                found |= set(columns["ids"].tolist())
        except (OSError, ValueError):
            continue
    return found


def _holds(directory: Path, said: bytes) -> bool:
    """Whether any file below holds these bytes; one may vanish as it is read."""
    for file in directory.rglob("*"):
        try:
            if file.is_file() and said in file.read_bytes():
                return True
        except FileNotFoundError:
            continue
    return False
