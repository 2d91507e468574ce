"""Re-embedding beside everything else: threads, other processes, other re-embeddings, and kill -9."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from memory import reembedding
from memory.database import Database
from memory.errors import ModelMismatch, ServerAway
from memory.memory_manager import MemoryManager
from memory.models import MemoryId
from memory.reembedding import reembed, tidy
from memory.revision import Revision
from memory.schema import index_clock, memories, next_embeddings
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from memory.store.vectors import iterate_vectors
from tests.fakes import TwinEmbedder, WideEmbedder, WordEmbedder
from tests.invariants import assert_events_contiguous
from tests.making import raw, store_all
from tests.waiting import wait_until

N = 120
SEARCHERS = 8
KILLS = 10
FUZZ_S = 5.0

MODELS = {model.fingerprint: model for model in (WordEmbedder, WideEmbedder, TwinEmbedder)}

# Re-embeds slowly, and says when each batch is done.
REEMBEDDER = """
import sys, time
from memory import reembedding
from memory.database import Database
from tests.fakes import WideEmbedder

reembedding.BATCH = 5
database = Database(sys.argv[1])
print("begun", flush=True)
n = reembedding.reembed(database, WideEmbedder(), on_progress=lambda *progress: print(*progress, flush=True))
print("switched", n, flush=True)
"""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "BATCH", 10)
    monkeypatch.setattr(reembedding, "_LOOK_AGAIN_S", 0.01)


def test_opening_with_another_model_is_refused_with_both_names_and_what_to_do(
    database_url: str, home: Path
) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memory("a letter", "task")
    with pytest.raises(ModelMismatch) as caught:
        MemoryManager(database_url, WideEmbedder(), home / "index")
    assert str(caught.value) == (
        "the stored vectors come from words@1/32d/float32/unit, the configured model is wide-words@1/48d"
        "/float32/unit: set EMBEDDING_MODEL (and EMBEDDING_PRECISION) back, "
        "or embed everything again with the new one: memory reembed"
    )


def test_a_manager_goes_over_to_another_model_and_so_does_its_index(database_url: str, home: Path) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memories([{"content": f"letter {i} of topic{i % 7}"} for i in range(N)])
        assert manager.reembed(WideEmbedder()) == N
        assert len(manager.search_memories("topic3", limit=1000)) == N
        mine = manager.add_memory("a kite", "task")
        assert manager.search_memories("a kite", limit=1)[0]["memory"].id == mine.id
        assert manager.update_memory(mine.id, "a kite in the wind").version == 2
        assert manager.reembed(WideEmbedder()) == 0
        assert manager.verify().equal
    with pytest.raises(ModelMismatch):
        MemoryManager(database_url, WordEmbedder(), home / "index")
    with MemoryManager(database_url, WideEmbedder(), home / "index") as manager:
        assert manager.verify().equal
        assert manager.reembed(WordEmbedder()) == N + 1  # and back
        assert manager.verify().equal


def test_a_manager_serves_all_its_threads_while_it_goes_over(database_url: str, home: Path) -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    n_searches = [0] * SEARCHERS

    def search(manager: MemoryManager, name: int) -> None:
        while not stop.is_set():
            results = manager.search_memories(f"topic{name % 7}", limit=5, expand=2)
            assert len(results) >= 5
            assert all(f"topic{name % 7}" in r["memory"].content for r in results[:5])
            n_searches[name] += 1

    def write(manager: MemoryManager, name: int) -> None:
        for n in range(100_000):
            if stop.is_set():
                return
            memory = manager.add_memory(f"note {n} by writer{name}", "task")
            [found] = manager.search_memories(f"note {n} by writer{name}", limit=1)
            assert found["memory"].id == memory.id  # also when the model changed in between
            manager.update_memory(memory.id, f"changed note {n} by writer{name}")
            manager.delete_memory(memory.id)

    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        letters = manager.add_memories([{"content": f"letter {i} of topic{i % 7}"} for i in range(N)])
        manager.add_memory_association(letters[0].id, letters[1].id, "before")
        threads = [
            *(_thread(search, manager, i, errors=errors) for i in range(SEARCHERS)),
            *(_thread(write, manager, i, errors=errors) for i in range(2)),
        ]
        models = (WideEmbedder(), TwinEmbedder(), WordEmbedder())
        for model in models:
            manager.reembed(model)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert all(n_searches)
        assert manager.verify().equal
        assert manager.verify().n_memories == N


def test_another_process_gets_whole_answers_of_the_old_model_and_then_is_refused(
    database_url: str, home: Path
) -> None:
    answers: list[list[tuple[int, float]]] = []
    refused: list[ModelMismatch] = []

    def ask(other: MemoryManager) -> list[tuple[int, float]]:
        return [(r["memory"].id, r["score"]) for r in other.search_memories("topic3", limit=N)]

    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memories([{"content": f"letter {i} of topic{i % 7}"} for i in range(N)])
        other = MemoryManager(database_url, WordEmbedder(), home / "another")
        before = ask(other)

        def keep_asking() -> None:
            while not refused:
                try:
                    answers.append(ask(other))
                except ModelMismatch as error:
                    refused.append(error)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        manager.reembed(TwinEmbedder())
        asking.join()
        assert answers
        assert all(answer == before for answer in answers)
        assert "twin-words@1" in str(refused[0])
        with pytest.raises(ModelMismatch):
            other.add_memory("too late", "task")
        assert manager.get_memory(N + 1) is None


def test_killed_between_switch_and_tidying_the_next_opening_does_the_rest(
    database: Database, database_url: str, home: Path
) -> None:
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        manager.add_memories([{"content": f"letter {i} of topic{i % 7}"} for i in range(N)])

    def kill() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        reembed(database, TwinEmbedder(), on_progress=_quiet, on_switched=kill)
    with pytest.raises(ModelMismatch):
        MemoryManager(database_url, WordEmbedder(), home / "index")
    with MemoryManager(database_url, TwinEmbedder(), home / "index") as manager:
        assert manager.verify().equal
        assert len(manager.search_memories("topic3", limit=1000)) == N
    _assert_of_one_model(database, TwinEmbedder.fingerprint)
    assert _n_beside(database) == 0


def test_killed_again_and_again_it_comes_to_its_end(
    database: Database, database_url: str, home: Path
) -> None:
    chance = random.Random(11)
    old = MemoryManager(database_url, WordEmbedder(), home / "index")
    ids = [m.id for m in old.add_memories([{"content": f"letter {i} of topic{i % 7}"} for i in range(600)])]
    n_done = 0
    for kill in range(KILLS):
        with _reembedder(database_url) as process:
            lines = iter(process.stdout or ())
            assert next(lines) == "begun\n"
            for line in lines:
                assert not line.startswith("switched")
                if chance.random() < 0.15:
                    break
            time.sleep(chance.random() * 0.02)  # not only just after a batch
            process.kill()
            process.wait()
        n_done = max(n_done, _n_beside(database))
        assert _n_beside(database) == n_done  # a kill loses nothing
        old.update_memory(ids[-1 - kill], f"reworded {kill}")
        old.add_memory(f"added {kill}", "task")
        assert len(old.search_memories("topic3", limit=1000)) == 600 + kill + 1
    assert old.verify().equal
    with _reembedder(database_url) as process:
        output = process.communicate(timeout=120)[0].splitlines()
    assert output[-1] == f"switched {600 + KILLS - n_done}"
    _assert_of_one_model(database, WideEmbedder.fingerprint)
    with pytest.raises(ModelMismatch):
        old.search_memories("topic3")
    old._process.index.release()
    with MemoryManager(database_url, WideEmbedder(), home / "index") as manager:
        comparison = manager.verify()
        assert comparison.equal, comparison
        assert comparison.n_memories == 600 + KILLS
        assert len(manager.search_memories("topic3", limit=1000)) == 600 + KILLS


def test_f16_whatever_runs_beside_it_all_vectors_are_always_of_the_one_serving_model(
    database: Database, database_url: str
) -> None:
    EventLog(database).claim_model(fingerprint=WordEmbedder.fingerprint, dim=32)
    ids = store_all(database, *(raw(f"letter {i}") for i in range(40)))
    errors: list[BaseException] = []
    stop = threading.Event()
    switches: list[str] = []
    threads = [
        *(_thread(_reembed_at_random, database_url, n, stop, switches, errors=errors) for n in range(3)),
        *(_thread(_write_at_random, database_url, n, stop, ids, errors=errors) for n in range(2)),
        _thread(_look, database_url, stop, errors=errors),
    ]
    stop.wait(FUZZ_S)
    wait_until(lambda: errors or set(switches) == set(MODELS), timeout_s=60, why="each model served once")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    reembed(database, TwinEmbedder(), on_progress=_quiet)
    reembed(database, WideEmbedder(), on_progress=_quiet)  # so that it is not the serving one already
    _assert_of_one_model(database, WideEmbedder.fingerprint)
    assert_events_contiguous(database)
    assert _n_beside(database) == 0


def _reembed_at_random(url: str, name: int, stop: threading.Event, switches: list[str]) -> None:
    chance, database = random.Random(name), Database(url)
    while not stop.is_set():
        model = chance.choice(list(MODELS.values()))()
        try:
            reembed(database, model, on_progress=_die_after(chance.choice([0, 1, 2, 3, 100, 100])))
            switches.append(model.fingerprint)
        except (ZeroDivisionError, ModelMismatch):
            pass
        tidy(database)
    database.close()


def _write_at_random(url: str, name: int, stop: threading.Event, ids: list[int]) -> None:
    chance, database = random.Random(name), Database(url)
    store = MemoryStore(database)
    for n in range(100_000):
        if stop.wait(chance.random() * 0.02):
            break
        identity = EventLog(database).identity()
        assert identity is not None
        model = MODELS[identity.model_fingerprint]()
        try:
            if chance.random() < 0.3:
                [new] = store_all(database, raw(f"added {n} {name}"), embedder=model)
                store.delete(MemoryId(new))
            else:
                revision = Revision(store=store, embedder=model, max_content_bytes=1000)
                revision.revise(MemoryId(chance.choice(ids)), content=f"changed {n} {name}")
                revision.revise(MemoryId(chance.choice(ids)), metadata={"n": n}, memory_type="task")
        except (ModelMismatch, ServerAway):
            pass
    database.close()


def _look(url: str, stop: threading.Event) -> None:
    database = Database(url)
    while not stop.is_set():
        _assert_of_one_model(database)
    database.close()


def _quiet(*_: object) -> None:
    pass


def _die_after(n_batches: int) -> Callable[[int, int], None]:
    batches = iter(range(n_batches))

    def die(_done: int, _left: int) -> None:
        if next(batches, None) is None:
            raise ZeroDivisionError

    return die


def _thread(step: Callable[..., None], *arguments: Any, errors: list[BaseException]) -> threading.Thread:
    def run() -> None:
        try:
            step(*arguments)
        except BaseException as error:  # noqa: BLE001 (a thread's error must reach the test)
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@contextmanager
def _reembedder(database_url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", REEMBEDDER, database_url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _n_beside(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(next_embeddings)) or 0


def _assert_of_one_model(database: Database, fingerprint: str | None = None) -> None:
    """Every live memory's vector is the serving model's, of its content as it is."""
    with database.snapshot() as connection:
        serving = connection.scalar(select(index_clock.c.model_fingerprint)) or ""
        rows: Sequence[Any] = connection.execute(
            select(memories.c.id, memories.c.content).where(memories.c.deleted_at.is_(None))
        ).all()
        found = {row.memory_id: row.embedding for page in iterate_vectors(connection) for row in page}
    assert fingerprint in {None, serving}
    expected = MODELS[serving]().encode([row.content for row in rows])
    assert found == {row.id: e.astype("<f4").tobytes() for row, e in zip(rows, expected, strict=True)}
