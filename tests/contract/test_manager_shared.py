"""One manager among many threads, one database among many processes: nothing lost, nothing torn."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from memory.database import Database
from memory.errors import IndexInUse
from memory.index_sync import INDEXER
from memory.memory_manager import MemoryManager
from memory.models import Seq
from memory.schema import index_state
from memory.store.event_log import SEEN_WITHIN, EventLog
from tests.fakes import WordEmbedder
from tests.waiting import wait_until

THREADS = 16
ROUNDS = 12
KILLS = 6

# Adds memories one by one, and prints the number of each that is stored.
WRITER = """
import sys
from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder

url, index, name = sys.argv[1:]
with MemoryManager(url, WordEmbedder(), index) as manager:
    print("owner" if manager.owns_index else "follower", flush=True)
    for n in range(100_000):
        manager.add_memory(f"letter {n} of {name}", "episodic", uid=f"{name}-{n}")
        if n % 5 == 4:
            manager.delete_memory(manager.add_memory("a mistake", "task").id)
        if n % 10 == 9 and manager.owns_index:
            manager.save_index()
        print(n, flush=True)
"""


def test_sixteen_threads_share_a_manager_without_an_error_or_a_lost_vector(
    database_url: str, home: Path
) -> None:
    errors: list[BaseException] = []
    kept: set[int] = set()
    together = threading.Barrier(THREADS)

    def work(manager: MemoryManager, name: int) -> None:
        try:
            together.wait(timeout=30)
            for n in range(ROUNDS):
                mine = manager.add_memory(f"letter {n} of writer{name}", "episodic")
                drafts = [{"content": f"copy {i} of {n} by writer{name}"} for i in range(3)]
                others = manager.add_memories(drafts)
                hits = manager.search_memories(f"letter {n} of writer{name}", limit=1)
                assert hits[0]["memory"].id == mine.id  # everybody sees what is stored, at once
                manager.update_memory(others[0].id, f"changed {n} by writer{name}")
                manager.add_memory_association(mine.id, others[0].id, "copied_to")
                assert manager.delete_memory(others[1].id)
                assert manager.get_memory(others[1].id) is None
                kept.update((mine.id, others[0].id, others[2].id))
        except BaseException as error:  # noqa: BLE001 (a thread's error must reach the test)
            errors.append(error)

    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        threads = [threading.Thread(target=work, args=(manager, name)) for name in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        comparison = manager.verify()
        assert comparison.equal, comparison
        assert comparison.n_memories == len(kept) == THREADS * ROUNDS * 3
        assert {r["memory"].id for r in manager.search_memories("letter", limit=1000)} == kept


def test_a_second_process_follows_what_the_owner_does_and_leaves_its_files_alone(
    database_url: str, home: Path
) -> None:
    index = home / "index"
    with _writer(database_url, index, "first") as writer:
        assert _next_line(writer) == "owner"
        with MemoryManager(database_url, WordEmbedder(), index) as follower:
            assert not follower.owns_index
            wait_until(lambda: int(_next_line(writer)) >= 15, timeout_s=30, why="the owner has stored some")
            hits = follower.search_memories("letter 15 of first", limit=1)
            assert hits[0]["memory"].uid == "first-15"
            mine = follower.add_memory("a postcard from the follower", "episodic")
            assert follower.search_memories("postcard", limit=1)[0]["memory"].id == mine.id
            assert follower.verify().equal
            with pytest.raises(IndexInUse, match="owned by another process"):
                follower.save_index()
    with MemoryManager(database_url, WordEmbedder(), index) as manager:
        assert manager.owns_index  # the owner is gone, however it went
        assert manager.search_memories("postcard", limit=1)[0]["memory"].id == mine.id


def test_killed_at_any_moment_a_manager_opens_again_with_all_that_was_stored(
    database_url: str, home: Path
) -> None:
    chance = random.Random(7)
    stored: set[str] = set()
    for kill in range(KILLS):
        with _writer(database_url, home / "index", f"w{kill}") as writer:
            assert _next_line(writer) == "owner"
            for _ in range(chance.randrange(1, 60)):
                stored.add(f"w{kill}-{_next_line(writer)}")
            writer.kill()
            stored.update(f"w{kill}-{line}" for line in writer.communicate()[0].split())
        with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
            comparison = manager.verify()
            assert comparison.equal, comparison
            found = {r["memory"].uid for r in manager.search_memories("letter", "episodic", limit=1000)}
            # What was stored is there; one more may be, whose number was not printed any more.
            assert stored <= found
            assert len(found - stored) <= kill + 1


def test_a_follower_saves_once_the_owner_is_gone(database_url: str, home: Path) -> None:
    index = home / "index"
    first = MemoryManager(database_url, WordEmbedder(), index)
    with MemoryManager(database_url, WordEmbedder(), index) as second:
        second.add_memory("a kite", "task")
        with pytest.raises(IndexInUse):
            second.save_index()
        first.close()
        second.save_index()
        assert second.owns_index
        assert second.verify().equal


def test_a_manager_that_is_dropped_without_a_word_leaves_the_index_to_the_next(
    database_url: str, home: Path
) -> None:
    manager = MemoryManager(database_url, WordEmbedder(), home / "index")
    manager.add_memory("a kite", "task")
    manager._process.database.close()
    del manager
    gc.collect()
    with MemoryManager(database_url, WordEmbedder(), home / "index") as another:
        assert another.owns_index
        assert another.verify().equal


def test_beside_a_living_indexer_a_manager_saves_for_itself_and_leaves_the_books_alone(
    database: Database, database_url: str, home: Path
) -> None:
    log = EventLog(database)
    epoch = log.take_over(owner=f"{INDEXER}somewhere:1", applied_seq=Seq(0))
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memory("a kite", "task")
        manager.save_index()
        assert manager.owns_index
        assert manager.verify().equal
        assert log.progress().epoch == epoch
    assert list((home / "index" / "snapshots").iterdir())
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        assert manager.search_memories("a kite")[0]["rank"] == 1
        assert manager.verify().equal
    with database.write() as connection:
        long_ago = datetime.now(UTC) - 2 * SEEN_WITHIN
        connection.execute(update(index_state).values(updated_at=long_ago))
    with MemoryManager(database_url, WordEmbedder(), home / "index"):
        assert log.progress().epoch == (epoch or 0) + 1, "an indexer that has not been seen for long is gone"


@contextmanager
def _writer(url: str, index: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, url, str(index), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
