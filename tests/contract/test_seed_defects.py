"""The thirteen defects of the known public implementation of this seed, each by its number: none is here."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from memory.database import Database
from memory.errors import ModelMismatch, SettingsError
from memory.memory_manager import MemoryManager
from memory.schema import associations, memories
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous

OLD = datetime.now(UTC) - timedelta(days=40)

# What writes an index event cannot be committed: the commit itself fails, after all else went well.
REFUSE_COMMITS = {
    "sqlite": """
        CREATE TABLE nowhere (id INTEGER PRIMARY KEY);
        CREATE TABLE refused (id INTEGER REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER refuse_commits AFTER INSERT ON index_events
            BEGIN INSERT INTO refused VALUES (1) |; END;
    """,
    "postgresql": """
        CREATE TABLE nowhere (id INTEGER PRIMARY KEY);
        CREATE TABLE refused (id INTEGER REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO refused VALUES (1) |; RETURN NULL |; END $$;
        CREATE TRIGGER refuse_commits AFTER INSERT ON index_events FOR EACH ROW EXECUTE FUNCTION refuse();
    """,
}
LET_COMMIT = {
    "sqlite": "DROP TRIGGER refuse_commits",
    "postgresql": "DROP TRIGGER refuse_commits ON index_events",
}

# Each child opens, adds one memory, prints its id, and saves. The first one lives; the next ones die by
# SIGKILL, each at an earlier step: all that Python does with a file of the index counts as a step.
KILLED_WHILE_SAVING = """
import os, signal, sys
from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder

url, index, stride = sys.argv[1:]
steps_left = None

def die_at_last(event, arguments):
    global steps_left
    if steps_left is None or not arguments or index not in str(arguments[0]):
        return
    steps_left -= 1
    if steps_left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_at_last)
ends = []
for step in (1000, *range(24, -1, -int(stride))):
    child = os.fork()
    if not child:
        manager = MemoryManager(url, WordEmbedder(), index)
        assert manager.owns_index
        print(manager.add_memory(f"memory {step}", "task").id, flush=True)
        steps_left = step
        manager.save_index()
        os._exit(0)
    ends.append(os.waitpid(child, 0)[1])
assert ends[0] == 0 and ends.count(signal.SIGKILL) >= 5, ends
"""


@pytest.fixture
def manager(database_url: str, home: Path) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        yield manager


def test_defect_01_the_cleanup_runs_and_its_errors_are_heard(
    manager: MemoryManager, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.add_memory("an old note", "task", metadata={"importance": 0.1}, created_at=OLD)
    _execute(database, REFUSE_COMMITS)
    with pytest.raises(IntegrityError):
        manager.cleanup_old_memories(dry_run=False)
    assert manager.get_memory(1) is not None
    _execute(database, LET_COMMIT)
    assert manager.cleanup_old_memories(dry_run=False) == {"total_found": 1, "deleted": 1, "skipped": 0}
    assert manager.get_memory(1) is None


def test_defect_02_a_restart_adds_nothing_to_the_index(database_url: str, home: Path) -> None:
    for _ in range(3):
        with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
            manager.add_memories([{"content": f"note {n}", "uid": str(n)} for n in range(10)])
            comparison = manager.verify()
            assert (comparison.n_vectors, comparison.equal) == (10, True)
            found = [r["memory"].id for r in manager.search_memories("note 3", limit=100)]
            assert len(found) == len(set(found)) == 10


def test_defect_03_an_update_is_found_by_its_new_words_only(manager: MemoryManager) -> None:
    memory = manager.add_memory("purple elephants", "task")
    manager.update_memory(memory.id, content="green whales")
    assert [
        r["memory"].id for r in manager.search_memories("green whales", min_score=0.99, mode="vector")
    ] == [memory.id]
    assert manager.search_memories("purple elephants", min_score=0.9, mode="vector") == []
    assert manager.verify().n_vectors == 1


def test_defect_04_a_type_filter_leaves_as_many_results_as_asked_for(manager: MemoryManager) -> None:
    manager.add_memories([{"content": "a red kite", "memory_type": "episodic"} for _ in range(50)])
    manager.add_memories([{"content": f"bread {n}", "memory_type": "semantic"} for n in range(5)])
    found = manager.search_memories("a red kite", memory_types=["semantic"], limit=5)
    assert [r["memory"].memory_type for r in found] == ["semantic"] * 5


def test_defect_05_a_commit_that_fails_changes_nothing_in_the_index(
    manager: MemoryManager, database: Database
) -> None:
    kept = manager.add_memory("a red kite", "task", metadata={"importance": 0.1}, created_at=OLD)
    changes: list[Callable[[], Any]] = [
        lambda: manager.add_memory("bread", "task"),
        lambda: manager.add_memories([{"content": "bread"}, {"content": "butter"}]),
        lambda: manager.update_memory(kept.id, content="bread"),
        lambda: manager.update_memory(kept.id, memory_type="semantic"),
        lambda: manager.delete_memory(kept.id),
        lambda: manager.cleanup_old_memories(dry_run=False),
    ]
    _execute(database, REFUSE_COMMITS)
    for change in changes:
        with pytest.raises(IntegrityError):
            change()
        comparison = manager.verify()
        assert (comparison.n_vectors, comparison.equal) == (1, True)
        assert manager.search_memories("bread", min_score=0.9, mode="vector") == []
        assert manager.get_memory(kept.id) == kept
    _execute(database, LET_COMMIT)
    assert [
        r["memory"] for r in manager.search_memories("a red kite", "task", min_score=0.9, mode="vector")
    ] == [kept]
    changes[0]()
    assert manager.verify().n_vectors == 2
    assert_events_contiguous(database)


def test_defect_06_a_kill_at_any_step_of_saving_loses_and_tears_nothing(
    database_url: str, home: Path
) -> None:
    stride = "2" if database_url.startswith("sqlite") else "4"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, database_url, str(home / "index"), stride],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    stored = [int(line) for line in done.stdout.split()]
    assert not (home / "index" / "quarantine").exists()  # at each start the snapshot was whole
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        assert manager.verify().equal
        assert {r["memory"].id for r in manager.search_memories("memory", limit=1000)} == set(stored)
    assert not list((home / "index").glob("snapshots/tmp-*"))


def test_defect_07_a_result_is_readable_wherever_it_goes(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memory("a red kite", "task", metadata={"tags": ["toy"]})
        [result] = manager.search_memories("a red kite")
        assert result["memory"].content == "a red kite"
    assert (result["memory"].content, result["memory"].metadata) == ("a red kite", {"tags": ["toy"]})


def test_defect_08_a_memory_with_associations_can_be_deleted(
    manager: MemoryManager, database: Database
) -> None:
    first, second, third = (manager.add_memory(word, "task").id for word in ("one", "two", "three"))
    manager.add_memory_association(first, second, "next")
    manager.add_memory_association(third, first, "next")
    assert manager.delete_memory(first)
    comparison = manager.verify()
    assert (comparison.n_vectors, comparison.equal) == (2, True)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(associations)) == 0


def test_defect_09_a_text_that_breaks_the_model_leaves_no_row(
    database_url: str, database: Database, home: Path
) -> None:
    with MemoryManager(database_url, WordEmbedder(poison="xyzzy"), home / "index") as manager:
        kept = manager.add_memory("a red kite", "task")
        refused: list[Callable[[], Any]] = [
            lambda: manager.add_memory("xyzzy", "task", uid="k"),
            lambda: manager.add_memories([{"content": "fine"}, {"content": "xyzzy"}]),
            lambda: manager.update_memory(kept.id, content="xyzzy"),
        ]
        for call in refused:
            with pytest.raises(RuntimeError, match="breaks the model"):
                call()
        with database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(memories)) == 1
        assert manager.get_memory(kept.id) == kept
        assert manager.verify().equal
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        again = manager.add_memory("xyzzy", "task", uid="k")
        assert [r["memory"] for r in manager.search_memories("xyzzy", min_score=0.99, mode="vector")] == [
            again
        ]


def test_defect_10_an_embedding_is_stored_as_its_bytes(manager: MemoryManager, database: Database) -> None:
    manager.add_memory("a red kite", "task")
    with database.read() as connection:
        stored = connection.execute(text("SELECT embedding FROM memories")).scalar_one()
    assert isinstance(stored, bytes)
    expected = WordEmbedder().encode(["a red kite"])[0]
    assert len(stored) == 4 * len(expected)
    assert np.array_equal(np.frombuffer(stored, dtype="<f4"), expected)


def test_defect_11_use_gpu_is_read_for_the_model_and_for_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    url = f"sqlite:///{tmp_path / 'memories.db'}"
    for value in ("True", "1", "true", "yes"):
        monkeypatch.setenv("USE_GPU", value)
        with pytest.raises(SettingsError, match=r"USE_GPU = True: .*torch finds no CUDA device"):
            MemoryManager(url)
        with pytest.raises(SettingsError, match=r"USE_GPU = True: .*faiss"):
            MemoryManager(url, WordEmbedder())
    for value in ("False", "0", ""):
        monkeypatch.setenv("USE_GPU", value)
        MemoryManager(url, WordEmbedder()).close()


def test_defect_12_another_model_of_the_same_dimension_is_refused(database_url: str, home: Path) -> None:
    class Another(WordEmbedder):
        fingerprint = "another@1/32d/float32/unit"

        def encode(self, texts: Sequence[str]) -> Any:
            return -super().encode(texts)

    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memory("a red kite", "task")
    with pytest.raises(ModelMismatch, match=r"words@1\S* the configured model is another@1"):
        MemoryManager(database_url, Another(), home / "index")
    with (
        MemoryManager(database_url, WordEmbedder(), home / "index") as manager,
        MemoryManager(database_url, WordEmbedder(), home / "index") as overtaken,
    ):
        assert manager.reembed(Another()) == 1
        assert manager.search_memories("a red kite", min_score=0.99, mode="vector")
        for call in (
            lambda: overtaken.add_memory("bread", "task"),
            lambda: overtaken.search_memories("kite"),
        ):
            with pytest.raises(ModelMismatch):
                call()
        assert manager.verify().n_memories == 1  # nothing of the old model slipped in
    with MemoryManager(database_url, Another(), home / "index") as manager:
        assert manager.search_memories("a red kite", min_score=0.99, mode="vector")


@pytest.fixture(params=["Pacific/Kiritimati", "Etc/GMT+12"], ids=["UTC+14", "UTC-12"])
def far_from_greenwich(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process lives in a time zone far from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        assert datetime.now().astimezone().utcoffset() != timedelta(0)
        yield
    time.tzset()


def test_defect_13_instants_are_aware_and_right_in_every_time_zone(
    far_from_greenwich: None, manager: MemoryManager
) -> None:
    hours = timedelta(hours=1)
    unimportant = {"importance": 0}
    now = datetime.now(UTC)
    memory = manager.add_memory("just now", "task", metadata=unimportant)
    assert memory.created_at.utcoffset() == timedelta(0)
    assert abs(memory.created_at - now) < timedelta(minutes=1)
    assert manager.get_memory(memory.id) == memory
    naive = manager.add_memory("at noon", "task", created_at=datetime(2025, 6, 1, 12))  # noqa: DTZ001 (on purpose)
    assert naive.created_at == datetime(2025, 6, 1, 12, tzinfo=UTC)
    for age in (11, 13):
        manager.add_memory(f"{age} hours ago", "task", metadata=unimportant, created_at=now - age * hours)
    assert manager.cleanup_old_memories(max_age_days=0.5, dry_run=False)["deleted"] == 1
    [found] = manager.search_memories("just now", limit=1)
    accessed = manager.get_memory(found["memory"].id)
    assert accessed is not None
    assert accessed.last_accessed is not None
    assert abs(accessed.last_accessed - now) < timedelta(minutes=1)
    assert {r["memory"].content for r in manager.search_memories("any")} == {
        "just now",
        "at noon",
        "11 hours ago",
    }


def _execute(database: Database, statements: dict[str, str]) -> None:
    with database.write() as connection:
        for statement in re.split(r"(?<!\|);", statements[connection.dialect.name]):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("|;", ";"))
