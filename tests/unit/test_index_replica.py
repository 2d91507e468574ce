"""The index in memory: changed as a whole, seen as a whole, and waited for."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from memory.catalogue import Catalogue
from memory.faiss_index import FAISSIndex
from memory.index_replica import IndexReplica
from memory.models import MemoryId, MemoryType, SearchMode, Seq
from memory.relevance import Query, Scope
from memory.snapshot import Snapshot
from memory.window_index import WindowIndex
from memory.word_index import WordIndex
from tests.making import text_of
from tests.waiting import wait_until

DIM = 8
EVERYWHERE = np.full(DIM, DIM**-0.5, dtype=np.float32)  # as near to each axis as to any other


def empty(seq: int = 0) -> Snapshot:
    return Snapshot(
        index=FAISSIndex(DIM),
        windows=WindowIndex(FAISSIndex(DIM)),
        catalogue=Catalogue(),
        words=WordIndex(),
        applied_seq=Seq(seq),
    )


def replica_of(content: Snapshot) -> IndexReplica:
    return IndexReplica(content, model_fingerprint="model")


def axis(number: int) -> npt.NDArray[np.float32]:
    return np.eye(DIM, dtype=np.float32)[[number % DIM]]


def change(
    replica: IndexReplica,
    seq: int,
    *,
    removed: Sequence[int] = (),
    added: int | None = None,
    group: tuple[str, str] = ("default", "task"),
) -> None:
    replica.change(
        removed=[MemoryId(i) for i in removed],
        added=[] if added is None else [MemoryId(added)],
        groups=[] if added is None else [group],
        vectors=np.empty((0, DIM), dtype=np.float32) if added is None else axis(added),
        texts=[] if added is None else [text_of(added, namespace=group[0])],
        seq=Seq(seq),
    )


def found(
    replica: IndexReplica,
    *,
    namespace: str = "default",
    types: Sequence[MemoryType] | None = None,
    min_score: float = -1,
) -> list[int]:
    hits = replica.search(
        Query(vector=EVERYWHERE, terms=[]),
        Scope(namespace=namespace, memory_types=types),
        mode=SearchMode.VECTOR,
        k=10,
    )
    return hits.ids[hits.scores >= min_score].tolist()


def test_a_change_is_searchable_and_moves_the_applied_event() -> None:
    replica = replica_of(empty())
    change(replica, 4, added=1)
    assert replica.applied_seq == 4
    query = Query(vector=axis(1)[0], terms=[])
    hits = replica.search(query, Scope(namespace="default"), mode=SearchMode.VECTOR, k=5)
    assert (hits.ids.tolist(), hits.scores.tolist(), replica.slack) == ([1], [1.0], 0)


def test_a_search_stays_in_its_namespace_and_types() -> None:
    replica = replica_of(empty())
    change(replica, 1, added=1, group=("default", "task"))
    change(replica, 2, added=2, group=("default", "semantic"))
    change(replica, 3, added=3, group=("other", "task"))
    assert found(replica) == [1, 2]
    assert found(replica, types=[MemoryType.SEMANTIC]) == [2]
    assert found(replica, namespace="other") == [3]
    assert found(replica, namespace="nobody's") == []
    assert found(replica, min_score=0.9) == []


def test_an_added_memory_that_is_there_is_replaced_in_vector_and_group() -> None:
    replica = replica_of(empty())
    change(replica, 1, added=1, group=("default", "task"))
    change(replica, 2, added=1, group=("other", "task"))
    assert found(replica) == []
    assert found(replica, namespace="other") == [1]
    assert len(replica.content.index) == len(replica.content.catalogue) == 1


def test_a_removed_memory_is_found_no_more_and_removing_it_again_is_no_error() -> None:
    replica = replica_of(empty())
    change(replica, 1, added=1)
    change(replica, 2, removed=[1])
    change(replica, 3, removed=[1])
    assert found(replica) == []
    assert len(replica.content.index) == len(replica.content.catalogue) == 0


@pytest.mark.parametrize(("seq", "arrived"), [(3, True), (4, True), (5, False)])
def test_waiting_ends_at_once_where_the_event_is_applied_already(seq: int, arrived: bool) -> None:
    assert replica_of(empty(4)).wait_until(Seq(seq), timeout_s=0) is arrived


@pytest.mark.parametrize("how", ["change", "replace"])
def test_who_waits_for_an_event_is_woken_when_it_is_applied(how: str) -> None:
    replica = replica_of(empty())
    arrived: list[bool] = []
    waiter = threading.Thread(
        target=lambda: arrived.append(replica.wait_until(Seq(2), timeout_s=120)), daemon=True
    )
    waiter.start()

    def waits() -> object:
        return replica._changed._waiters  # type: ignore[attr-defined]

    wait_until(waits, timeout_s=10, why="the thread waits")
    change(replica, 1, added=1)
    wait_until(waits, timeout_s=10, why="the thread waits on, for this was not the event")
    if how == "change":
        change(replica, 2)
    else:
        replica.replace(empty(2))
    waiter.join(timeout=10)
    assert arrived == [True]


def test_replacing_switches_content_and_event_together() -> None:
    replica = replica_of(empty())
    change(replica, 7, added=1)
    replica.replace(empty(3))
    assert replica.applied_seq == 3
    assert found(replica) == []


def test_every_search_during_changes_sees_a_state_between_two_changes() -> None:
    """Each change swaps the one memory there is for the next, so a search must always find exactly one."""
    replica = replica_of(empty())
    change(replica, 1, added=1)
    n_searches = [0, 0]
    wrong: list[object] = []
    stop = threading.Event()

    def search(thread: int) -> None:
        try:
            while not stop.is_set():
                at_least = replica.applied_seq
                ids = found(replica)
                if len(ids) != 1 or not at_least <= ids[0] <= replica.applied_seq:
                    wrong.append((at_least, ids))
                n_searches[thread] += 1
        except Exception as error:  # noqa: BLE001 (shown below, in the test's own thread)
            wrong.append(error)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    seq = 1
    while min(n_searches) < 200 and not wrong and seq < 100_000:
        seq += 1
        change(replica, seq, removed=[seq - 1], added=seq)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
    assert wrong == []
    assert min(n_searches) >= 200
