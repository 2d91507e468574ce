"""Another model takes over all at once, whatever is written, killed or begun meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from memory import reembedding
from memory.cleanup import CleanupPolicy, clean_up
from memory.database import Database
from memory.errors import InvalidMemory, ModelMismatch, ServerAway, SettingsError
from memory.models import MemoryId
from memory.reembedding import reembed, tidy
from memory.revision import Revision
from memory.schema import index_clock, index_events, memories, next_embeddings
from memory.store.event_log import EventLog
from memory.store.generations import Generations, fold
from memory.store.memories import MemoryStore
from memory.store.vectors import iterate_vectors
from tests.fakes import TwinEmbedder, WideEmbedder, WordEmbedder
from tests.invariants import assert_events_contiguous, assert_index_equals_database
from tests.making import caught_up, open_index, raw, request, searcher, store_all

N = 60
BATCH = 10
PROBE = 1  # one harmless text is embedded first, to see whether the model works


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "BATCH", BATCH)
    monkeypatch.setattr(reembedding, "_LOOK_AGAIN_S", 0.01)


@pytest.fixture
def ids(database: Database) -> list[int]:
    """Memories of the first model."""
    _claim(database, WordEmbedder())
    return store_all(database, *(raw(f"letter {i} about topic{i % 7}") for i in range(N)))


class Killed(Exception):
    """Ends a re-embedding as a kill would: it does nothing more."""


class Hooked(WideEmbedder):
    """Does something before it embeds its nth batch, as something else does beside it."""

    def __init__(self, hooks: dict[int, Callable[[], Any]]) -> None:
        super().__init__()
        self._hooks = hooks
        self._n_batches = -1  # the first call is the probe

    def encode(self, texts: Sequence[str]) -> Any:
        self._n_batches += 1
        self._hooks.pop(self._n_batches, lambda: None)()
        return super().encode(texts)


def test_all_vectors_are_of_the_new_model_and_lie_in_their_rows(database: Database, ids: list[int]) -> None:
    MemoryStore(database).delete(MemoryId(ids[0]))
    progress: list[tuple[int, int]] = []
    n = reembed(database, WideEmbedder(), on_progress=lambda done, left: progress.append((done, left)))
    assert n == N - 1
    assert progress == [(9, 50), (19, 40), (29, 30), (39, 20), (49, 10), (59, 0)]
    _assert_all_by(database, WideEmbedder())
    identity = EventLog(database).identity()
    assert identity is not None
    assert (identity.model_fingerprint, identity.dim) == (WideEmbedder.fingerprint, 48)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(next_embeddings)) == 0
        rows = connection.execute(select(memories).where(memories.c.deleted_at.is_(None))).all()
        [tombstone] = connection.execute(select(memories).where(memories.c.id == ids[0])).all()
    assert {row.model_fingerprint for row in rows} == {WideEmbedder.fingerprint}
    assert {row.id: row.embedding for row in rows} == _vectors(database)
    assert tombstone.embedding is None
    assert_events_contiguous(database)


def test_the_serving_model_has_nothing_to_do(database: Database, ids: list[int]) -> None:
    embedder = WordEmbedder()
    assert reembed(database, embedder, on_progress=_quiet) == 0
    assert embedder.n_texts == PROBE
    _assert_all_by(database, WordEmbedder())


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "new"])
def test_an_empty_database_changes_hands_at_once(database: Database, claimed: bool) -> None:
    if claimed:
        _claim(database, WordEmbedder())
    assert reembed(database, WideEmbedder(), on_progress=_quiet) == 0
    _claim(database, WideEmbedder())
    with pytest.raises(ModelMismatch):
        _claim(database, WordEmbedder())


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_killed_it_goes_on_where_it_was(database: Database, ids: list[int], killed_after: int) -> None:
    _reembed_until(database, WideEmbedder(), n_batches=killed_after)
    _assert_all_by(database, WordEmbedder())
    second = WideEmbedder()
    left = N - killed_after * BATCH
    assert reembed(database, second, on_progress=_quiet) == left
    assert second.n_texts == PROBE + left
    _assert_all_by(database, WideEmbedder())


def test_until_the_switch_the_old_vectors_serve(database: Database, home: Path, ids: list[int]) -> None:
    sync = open_index(database, home)
    old = searcher(sync, database)
    before = old.search(request("topic3", limit=N), wait_s=0)

    def look(_done: int, _left: int) -> None:
        _assert_all_by(database, WordEmbedder())
        assert_index_equals_database(caught_up(sync))
        assert old.search(request("topic3", limit=N), wait_s=0) == before
        open_index(database, home / "another")

    reembed(database, WideEmbedder(), on_progress=look)
    with pytest.raises(ModelMismatch, match=r"from wide-words@1.*configured model is words@1"):
        sync.apply_next()


def test_writers_of_the_old_model_are_heard_until_the_switch_and_refused_after_it(
    database: Database, ids: list[int]
) -> None:
    old = _old_model(database)
    added: list[int] = []

    def write(done: int, _left: int) -> None:
        if len(added) < 25:  # also when the first walk is over
            added.extend(store_all(database, raw(f"added after {done} {len(added)}")))

    reembed(database, WideEmbedder(), on_progress=write)
    assert len(_assert_all_by(database, WideEmbedder())) == N + len(added)
    assert len(added) >= N / BATCH
    counts, head = MemoryStore(database).counts(), EventLog(database).head()
    with pytest.raises(ModelMismatch, match=r"from wide-words@1.*memory reembed"):
        store_all(database, raw("too late"))
    with pytest.raises(ModelMismatch):
        old.revise(MemoryId(ids[0]), content="too late")
    assert (MemoryStore(database).counts(), EventLog(database).head()) == (counts, head)
    old.revise(MemoryId(ids[0]), metadata={"read": True}, memory_type="task")  # no vector is written
    MemoryStore(database).delete(MemoryId(ids[1]))
    _assert_all_by(database, WideEmbedder())


def test_changes_during_the_run_are_in_the_new_generation(database: Database, ids: list[int]) -> None:
    revision = _old_model(database)
    old = datetime.now(UTC) - timedelta(days=90)
    store_all(database, raw("old", created_at=old, metadata={"importance": 0}))

    def change(done: int, _left: int) -> None:
        if done == 2 * BATCH:  # of the embedded ones, and of those that are to come
            for seen, i in enumerate((0, 1, -1, -2)):
                revision.revise(MemoryId(ids[i]), content=f"reworded {seen}")
            for i in (2, -3):
                revision.revise(MemoryId(ids[i]), metadata={"read": True})
                revision.revise(MemoryId(ids[i]), memory_type="task")
            for i in (3, -4):
                MemoryStore(database).delete(MemoryId(ids[i]))
            assert clean_up(database, CleanupPolicy(), dry_run=False).deleted == 1

    reembed(database, WideEmbedder(), on_progress=change)
    assert len(_assert_all_by(database, WideEmbedder())) == N - 2


@pytest.mark.parametrize("change", ["reword", "delete", "note"])
def test_a_change_while_its_memory_is_being_embedded_is_not_overlooked(
    database: Database, ids: list[int], change: str
) -> None:
    def act() -> None:
        if change == "reword":
            _old_model(database).revise(MemoryId(ids[BATCH]), content="reworded in between")
        elif change == "delete":
            MemoryStore(database).delete(MemoryId(ids[BATCH]))
        else:
            _old_model(database).revise(MemoryId(ids[BATCH]), metadata={"read": True})

    embedder = Hooked({2: act})
    reembed(database, embedder, on_progress=_quiet)
    _assert_all_by(database, WideEmbedder())
    assert embedder.n_texts == PROBE + N + (change == "reword")


def test_writers_that_never_rest_do_not_keep_it_from_switching(database: Database, ids: list[int]) -> None:
    stop, refused = threading.Event(), threading.Event()
    old = _old_model(database)

    def write() -> None:
        for n in range(100_000):
            try:
                store_all(database, raw(f"stream {n}", uid=str(n)))
                old.revise(MemoryId(ids[n % N]), content=f"stream {n}", metadata={"n": n})
            except ModelMismatch:
                refused.set()
            if stop.wait(0.02):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reembed(database, WideEmbedder(), on_progress=_quiet)
        _assert_all_by(database, WideEmbedder())
        assert refused.wait(timeout=10)
    finally:
        stop.set()
        writer.join()
    _assert_all_by(database, WideEmbedder())


def test_two_at_once_with_the_same_model_both_end_well(database: Database, ids: list[int]) -> None:
    results: list[Any] = []
    together = threading.Barrier(3)

    def run() -> None:
        together.wait(timeout=30)
        try:
            results.append(reembed(database, WideEmbedder(), on_progress=_quiet))
        except BaseException as error:  # noqa: BLE001 (a thread's error must reach the test)
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(n, int) for n in results), results
    assert sum(results) >= N
    _assert_all_by(database, WideEmbedder())


def test_one_that_is_overtaken_by_another_model_says_so(database: Database, ids: list[int]) -> None:
    overtaken = Hooked({3: lambda: _reembed_until(database, TwinEmbedder(), n_batches=2)})
    with pytest.raises(ModelMismatch, match=r"twin-words@1.*wide-words@1"):
        reembed(database, overtaken, on_progress=_quiet)
    _assert_all_by(database, WordEmbedder())
    reembed(database, TwinEmbedder(), on_progress=_quiet)
    _assert_all_by(database, TwinEmbedder())


def test_one_that_is_overtaken_and_whose_model_then_returns_does_not_trust_its_own_work(
    database: Database, ids: list[int]
) -> None:
    def overtake() -> None:
        _reembed_until(database, TwinEmbedder(), n_batches=2)
        _reembed_until(database, WideEmbedder(), n_batches=1)

    with pytest.raises(ModelMismatch):
        reembed(database, Hooked({5: overtake}), on_progress=_quiet)
    _assert_all_by(database, WordEmbedder())
    reembed(database, WideEmbedder(), on_progress=_quiet)
    _assert_all_by(database, WideEmbedder())


def test_one_abandoned_for_another_model_leaves_nothing(database: Database, ids: list[int]) -> None:
    _reembed_until(database, WideEmbedder(), n_batches=4)
    _reembed_until(database, TwinEmbedder(), n_batches=2)
    assert reembed(database, WideEmbedder(), on_progress=_quiet) == N - 2 * BATCH
    _assert_all_by(database, WideEmbedder())
    assert _n_beside(database) == 0


def test_there_and_back_again_a_snapshot_of_then_is_not_taken_for_todays(
    database: Database, home: Path, ids: list[int]
) -> None:
    sync = open_index(database, home)
    sync.save_snapshot()
    reembed(database, WideEmbedder(), on_progress=_quiet)
    reembed(database, WordEmbedder(), on_progress=_quiet)
    _assert_all_by(database, WordEmbedder())
    assert_index_equals_database(open_index(database, home))
    assert (home / "index" / "quarantine").exists()


def test_killed_between_switch_and_tidying_everything_is_right(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _reembed_but_do_not_tidy(database, WideEmbedder(), monkeypatch)
    new = Revision(store=MemoryStore(database), embedder=WideEmbedder(), max_content_bytes=1000)
    _assert_all_by(database, WideEmbedder())
    new.revise(MemoryId(ids[0]), content="reworded by the new model")
    new.revise(MemoryId(ids[1]), metadata={"read": True})
    MemoryStore(database).delete(MemoryId(ids[2]))
    store_all(database, raw("added with the new model"), embedder=WideEmbedder())
    expected = _assert_all_by(database, WideEmbedder())
    assert _n_beside(database) == N - 2
    tidy(database)
    assert _n_beside(database) == 0
    assert _assert_all_by(database, WideEmbedder()) == expected


def test_the_next_model_waits_until_the_one_before_is_tidied(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _reembed_but_do_not_tidy(database, TwinEmbedder(), monkeypatch)
    monkeypatch.setattr(
        reembedding, "fold", lambda _database: 0
    )  # as if the switch came just after the tidying
    _reembed_until(database, WideEmbedder(), n_batches=3)
    _assert_all_by(database, TwinEmbedder())  # also of those that have a next embedding by now


def test_tidying_moves_nothing_that_is_not_serving_yet(database: Database, ids: list[int]) -> None:
    _reembed_until(database, TwinEmbedder(), n_batches=3)
    tidy(database)
    assert _n_beside(database) == 3 * BATCH
    _assert_all_by(database, WordEmbedder())


def test_events_that_are_gone_are_made_up_for(database: Database, ids: list[int]) -> None:
    revision = _old_model(database)

    def change_and_prune(done: int, _left: int) -> None:
        if done in {3 * BATCH, N + 1}:  # on the walk, and at its end
            revision.revise(MemoryId(ids[0]), content=f"reworded after {done}")
            with database.write() as connection:
                connection.execute(delete(index_events))

    embedder = WideEmbedder()
    reembed(database, embedder, on_progress=change_and_prune)
    _assert_all_by(database, WideEmbedder())
    assert embedder.n_texts == PROBE + N + 2


def test_poison_is_named_while_all_else_is_done_and_the_old_model_serves(
    database: Database, ids: list[int]
) -> None:
    revision = _old_model(database)
    for i in (17, 23, 42):
        revision.revise(MemoryId(ids[i]), content=f"a letter with poison {i}")
    with pytest.raises(InvalidMemory) as caught:
        reembed(database, WideEmbedder(poison="poison"), on_progress=_quiet)
    assert str(caught.value) == (
        f"content of memory {ids[17]}, {ids[23]}, {ids[42]} = 'a letter with poison 17': must be text that "
        "wide-words@1/48d/float32/unit can embed (RuntimeError: this text breaks the model): the old vectors "
        "go on serving; change or delete this, and embed again: what is done stays done"
    )
    _assert_all_by(database, WordEmbedder())
    MemoryStore(database).delete(MemoryId(ids[17]))
    MemoryStore(database).delete(MemoryId(ids[23]))
    revision.revise(MemoryId(ids[42]), content="a harmless letter")
    assert reembed(database, WideEmbedder(poison="poison"), on_progress=_quiet) == 1
    _assert_all_by(database, WideEmbedder())


def test_poison_that_is_mended_meanwhile_does_not_matter(database: Database, ids: list[int]) -> None:
    revision = _old_model(database)
    revision.revise(MemoryId(ids[5]), content="poison")
    revision.revise(MemoryId(ids[6]), content="poison")

    def mend(done: int, _left: int) -> None:
        if done == 4 * BATCH - 2:
            revision.revise(MemoryId(ids[5]), content="harmless")
            MemoryStore(database).delete(MemoryId(ids[6]))

    reembed(database, WideEmbedder(poison="poison"), on_progress=mend)
    _assert_all_by(database, WideEmbedder())


def test_a_model_that_refuses_nearly_everything_is_given_up_early(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "_MOST_REFUSED", 5)
    embedder = WideEmbedder(poison="letter")
    with pytest.raises(InvalidMemory, match=rf"content of memory {ids[0]}, {ids[1]}, .*"):
        reembed(database, embedder, on_progress=_quiet)
    _assert_all_by(database, WordEmbedder())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows * 3,
        lambda rows: rows * float("nan"),
        lambda rows: rows[:, :16],
        lambda rows: rows[:-1],
        lambda rows: rows / None,
    ],
    ids=["too long", "no numbers", "too few numbers", "too few rows", "broken"],
)
def test_a_model_that_does_not_work_is_refused_before_anything_is_touched(
    database: Database, ids: list[int], spoil: Callable[[Any], Any]
) -> None:
    class Broken(WideEmbedder):
        def encode(self, texts: Sequence[str]) -> Any:
            return spoil(super().encode(texts))

    _reembed_until(database, TwinEmbedder(), n_batches=2)
    with pytest.raises(SettingsError, match=r"^the model wide-words@1.* fails on any text: "):
        reembed(database, Broken(), on_progress=_quiet)
    assert reembed(database, TwinEmbedder(), on_progress=_quiet) == N - 2 * BATCH


def test_a_model_that_breaks_on_the_way_blames_no_memory(database: Database, ids: list[int]) -> None:
    class Breaking(WideEmbedder):
        def encode(self, texts: Sequence[str]) -> Any:
            if self.n_texts > 3 * BATCH:
                raise RuntimeError("CUDA error: the GPU has fallen off the bus")
            return super().encode(texts)

    with pytest.raises(ServerAway, match="fails on any text: RuntimeError: CUDA error"):
        reembed(database, Breaking(), on_progress=_quiet, patience_s=0)
    assert reembed(database, WideEmbedder(), on_progress=_quiet) == N - 3 * BATCH


def test_a_short_outage_is_borne_and_a_long_one_is_said(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = iter([False, True, True, False, True] + 100 * [False])
    calls = {"next_batch": Generations.next_batch, "put": Generations.put, "switch": Generations.switch}

    def shaky(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(fail):
                raise ServerAway(f"deadlock in {name}")
            return calls[name](*args, **kwargs)

        return call

    for name in calls:
        monkeypatch.setattr(Generations, name, shaky(name))
    reembed(database, WideEmbedder(), on_progress=_quiet)
    _assert_all_by(database, WideEmbedder())
    fail = iter(1000 * [True])
    with pytest.raises(ServerAway, match="deadlock in next_batch"):
        reembed(database, TwinEmbedder(), on_progress=_quiet, patience_s=0.1)


@pytest.mark.parametrize("n_failures", [2, 1000])
def test_an_outage_after_the_switch_is_no_failure(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch, n_failures: int
) -> None:
    failures = iter(range(n_failures))

    def shaky(database: Database) -> int:
        if next(failures, None) is not None:
            raise ServerAway("deadlock")
        return fold(database)

    monkeypatch.setattr(reembedding, "fold", shaky)
    assert reembed(database, WideEmbedder(), on_progress=_quiet, patience_s=0.1) == N
    assert _n_beside(database) == (0 if n_failures == 2 else N)  # the next opening does the rest
    _assert_all_by(database, WideEmbedder())


def test_a_switch_whose_answer_was_lost_is_not_made_twice(
    database: Database, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Generations.switch
    lost: list[bool] = []

    def forgetful(self: Generations) -> bool:
        switched = switch(self)
        if not lost:
            lost.append(switched)
            raise ServerAway("connection lost")
        return switched

    monkeypatch.setattr(Generations, "switch", forgetful)
    assert reembed(database, WideEmbedder(), on_progress=_quiet) == N
    assert lost == [True]
    _assert_all_by(database, WideEmbedder())


def _quiet(*_: object) -> None:
    pass


def _claim(database: Database, embedder: WordEmbedder) -> None:
    EventLog(database).claim_model(fingerprint=embedder.fingerprint, dim=embedder.embedding_dim)


def _old_model(database: Database) -> Revision:
    return Revision(store=MemoryStore(database), embedder=WordEmbedder(), max_content_bytes=10_000)


def _reembed_until(database: Database, embedder: WordEmbedder, *, n_batches: int) -> None:
    batches = iter(range(1, n_batches + 1))

    def kill(_done: int, _left: int) -> None:
        if next(batches) == n_batches:
            raise Killed

    with pytest.raises(Killed):
        reembed(database, embedder, on_progress=kill)


def _reembed_but_do_not_tidy(
    database: Database, embedder: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        reembed(database, embedder, on_progress=_quiet, on_switched=kill)


def _vectors(database: Database) -> dict[int, bytes]:
    with database.snapshot() as connection:
        return {row.memory_id: row.embedding for page in iterate_vectors(connection) for row in page}


def _n_beside(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(next_embeddings)) or 0


def _assert_all_by(database: Database, embedder: WordEmbedder) -> dict[int, bytes]:
    """Every live memory's vector is this model's, of its content as it is; return them."""
    with database.snapshot() as connection:
        rows = connection.execute(
            select(memories.c.id, memories.c.content).where(memories.c.deleted_at.is_(None))
        ).all()
        found = {row.memory_id: row.embedding for page in iterate_vectors(connection) for row in page}
        assert connection.scalar(select(index_clock.c.model_fingerprint)) == embedder.fingerprint
    expected = embedder.encode([row.content for row in rows])
    assert found == {row.id: e.astype("<f4").tobytes() for row, e in zip(rows, expected, strict=True)}
    return found
