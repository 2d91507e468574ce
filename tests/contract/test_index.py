"""Index and database: equal after every kind of change, crash and damage; searches see what is live."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from memory.database import Database
from memory.errors import Fenced, NotYetSearchable
from memory.models import MemoryType
from memory.reembedding import reembed
from memory.schema import index_clock, index_events, memories
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from tests.fakes import TwinEmbedder, WordEmbedder
from tests.invariants import assert_index_equals_database
from tests.making import caught_up, open_index, raw, request, searcher, store_all


def test_stored_memories_become_searchable_when_their_events_are_applied(
    database: Database, home: Path
) -> None:
    sync = open_index(database, home)
    given = raw("the cat sleeps on the stove", uid="k")
    store_all(database, given)
    assert not MemoryStore(database).progress([given.key])[given.key].searchable
    assert MemoryStore(database).counts().searchable == 0
    caught_up(sync)
    assert MemoryStore(database).progress([given.key])[given.key].searchable
    assert MemoryStore(database).counts().searchable == 1
    [hit] = searcher(sync, database).search(request("cat stove"), wait_s=0)
    assert (hit.memory.content, hit.rank) == (given.content, 1)
    assert 0 < hit.score <= 1
    assert_index_equals_database(sync)


def test_a_deleted_memory_is_unsearchable_before_its_event_is_applied(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    ids = store_all(database, *(raw(f"cat number {i}") for i in range(20)))
    caught_up(sync)
    for memory_id in ids[:15]:
        MemoryStore(database).delete(memory_id)
    hits = searcher(sync, database).search(request("cat", limit=5), wait_s=0)
    assert {hit.memory.id for hit in hits} == set(ids[15:])
    caught_up(sync)
    assert len(sync.replica.content.index) == 5
    assert_index_equals_database(sync)


def test_a_filter_never_starves_the_result(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    common = [raw(f"tea tea tea {i}", memory_type="episodic") for i in range(300)]
    rare = [raw(f"coffee {i}", memory_type="preference") for i in range(4)]
    elsewhere = [raw(f"tea {i}", namespace="other", memory_type="preference") for i in range(50)]
    store_all(database, *common, *rare, *elsewhere)
    caught_up(sync)
    look = searcher(sync, database)
    few = look.search(request("tea", memory_types=(MemoryType.PREFERENCE,), limit=4), wait_s=0)
    assert {hit.memory.content for hit in few} == {r.content for r in rare}
    both = look.search(
        request("tea", memory_types=(MemoryType.PREFERENCE, MemoryType.EPISODIC), limit=304), wait_s=0
    )
    assert len(both) == 304
    assert [hit.rank for hit in both] == list(range(1, 305))
    assert [hit.score for hit in both] == sorted((hit.score for hit in both), reverse=True)
    assert all(hit.memory.namespace == "default" for hit in both)
    assert look.search(request("tea", namespace="nobody"), wait_s=0) == []
    assert look.search(request("tea", memory_types=(MemoryType.TASK,)), wait_s=0) == []


def test_a_search_for_a_write_that_is_not_applied_says_not_yet(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    store_all(database, raw("the newest thing"))
    with pytest.raises(NotYetSearchable, match="write 1 is not searchable yet"):
        searcher(sync, database).search(request("thing", min_seq=1), wait_s=0.05)
    caught_up(sync)
    assert len(searcher(sync, database).search(request("thing", min_seq=1), wait_s=0)) == 1


def test_the_score_is_cut_at_its_minimum(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    store_all(database, raw("red apple"), raw("quantum flux capacitor"))
    caught_up(sync)
    hits = searcher(sync, database).search(request("red apple", min_score=0.9), wait_s=0)
    assert [hit.memory.content for hit in hits] == ["red apple"]


def test_a_restart_goes_on_from_the_snapshot(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    ids = store_all(database, *(raw(f"memory {i}") for i in range(50)))
    caught_up(sync).save_snapshot()
    store_all(database, *(raw(f"later {i}") for i in range(10)))
    MemoryStore(database).delete(ids[3])
    again = open_index(database, home)
    assert again.replica.applied_seq == 50
    assert_index_equals_database(again)
    assert len(again.replica.content.index) == 59


def test_random_changes_with_restarts_keep_index_and_database_equal(database: Database, home: Path) -> None:
    chance = random.Random(7)
    live: list[int] = []
    sync = open_index(database, home)
    for step in range(60):
        match chance.choice(["add", "add", "delete", "apply", "snapshot", "crash", "lose"]):
            case "add":
                live += store_all(
                    database, *(raw(f"memory {step} {i}") for i in range(chance.randint(1, 30)))
                )
            case "delete" if live:
                MemoryStore(database).delete(live.pop(chance.randrange(len(live))))
            case "apply":
                sync.apply_next()
            case "snapshot":
                sync.save_snapshot()
            case "crash":
                sync = open_index(database, home)
            case "lose":
                shutil.rmtree(home / "index")
                sync = open_index(database, home)
    assert_index_equals_database(sync)
    assert sync.replica.content.index.ids().tolist() == sorted(live)


def test_events_are_pruned_only_up_to_the_older_snapshot_kept(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    for n in range(3):
        store_all(database, *(raw(f"memory {n} {i}") for i in range(10)))
        caught_up(sync).save_snapshot()
    names = sorted(p.name for p in (home / "index" / "snapshots").iterdir())
    assert [int(name.split("-")[0]) for name in names] == [20, 30]
    assert [event.seq for event in EventLog(database).after(0, limit=100)] == list(range(21, 31))


@pytest.mark.parametrize("file", ["vectors.faiss", "catalogue.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_snapshot_is_refused_kept_and_rebuilt(
    database: Database, home: Path, file: str, damage: str
) -> None:
    sync = open_index(database, home)
    store_all(database, *(raw(f"memory {i}") for i in range(40)))
    name = caught_up(sync).save_snapshot()
    _damage(home / "index" / "snapshots" / name / file, damage)
    again = open_index(database, home)
    assert_index_equals_database(again)
    assert [p.name.startswith(name) for p in (home / "index" / "quarantine").iterdir()] == [True]


def test_an_older_snapshot_put_back_is_caught_up_or_rebuilt(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    store_all(database, raw("one"))
    caught_up(sync).save_snapshot()
    shutil.copytree(home / "index", home / "old")
    for n in range(4):
        store_all(database, raw(f"more {n}"))
        caught_up(sync).save_snapshot()
    shutil.rmtree(home / "index")
    (home / "old").rename(home / "index")
    assert_index_equals_database(open_index(database, home))


def test_a_database_restored_from_an_older_backup_gets_a_new_index(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    ids = store_all(database, *(raw(f"memory {i}") for i in range(10)))
    caught_up(sync).save_snapshot()
    with database.write() as connection:
        connection.execute(delete(memories).where(memories.c.id == ids[-1]))
        connection.execute(delete(index_events).where(index_events.c.seq == 10))
        connection.execute(update(index_clock).values(head=9))
    sync.apply_next()  # the running owner notices too
    assert_index_equals_database(sync)
    assert_index_equals_database(open_index(database, home))


def test_lost_events_are_noticed_and_the_index_rebuilt(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    store_all(database, *(raw(f"memory {i}") for i in range(10)))
    with database.write() as connection:
        connection.execute(delete(index_events).where(index_events.c.seq.in_([4, 5])))
    caught_up(sync)
    assert_index_equals_database(sync)
    store_all(database, *(raw(f"later {i}") for i in range(3)))
    with database.write() as connection:
        connection.execute(delete(index_events))
    caught_up(sync)
    assert_index_equals_database(sync)


def test_an_earlier_owner_is_fenced(database: Database, home: Path) -> None:
    zombie = open_index(database, home, owner="zombie")
    store_all(database, raw("one"))
    owner = caught_up(open_index(database, home, owner="owner"))
    owner.save_snapshot()
    current = (home / "index" / "CURRENT").read_text()
    with pytest.raises(Fenced):
        zombie.apply_next()
    with pytest.raises(Fenced):
        zombie.save_snapshot()
    assert (home / "index" / "CURRENT").read_text() == current


def test_recalled_memories_note_when_but_not_at_every_search(database: Database, home: Path) -> None:
    sync = open_index(database, home)
    [memory_id] = store_all(database, raw("a cat"))
    look = searcher(caught_up(sync), database)
    assert MemoryStore(database).get(memory_id).last_access_at is None
    look.search(request("cat"), wait_s=0)
    look.note_recalls()
    first = MemoryStore(database).get(memory_id).last_access_at
    assert first is not None
    look.search(request("cat"), wait_s=0)
    look.note_recalls()
    assert MemoryStore(database).get(memory_id).last_access_at == first


def _damage(path: Path, kind: str) -> None:
    body = path.read_bytes()
    match kind:
        case "flip":
            middle = len(body) // 2
            path.write_bytes(body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])
        case "truncate":
            path.write_bytes(body[: len(body) // 2])
        case "remove":
            path.unlink()


def test_an_index_that_slept_while_the_vectors_were_replaced_to_and_fro_is_made_anew(
    database: Database, home: Path
) -> None:
    sync = open_index(database, home)
    store_all(database, *(raw(f"letter {i}") for i in range(20)))
    caught_up(sync)
    for model in (TwinEmbedder(), WordEmbedder()):
        reembed(database, model, on_progress=lambda _done, _left: None)
    assert sync.identity != EventLog(database).identity()
    caught_up(sync)
    assert sync.identity == EventLog(database).identity()
    assert_index_equals_database(sync)
    again = open_index(database, home)
    assert len(again.replica.content.index) == 20


def test_a_damaged_vector_keeps_no_other_from_being_found_and_a_comparison_tells(
    database: Database, home: Path
) -> None:
    sync = open_index(database, home)
    ids = store_all(database, *(raw(f"letter {i}") for i in range(20)))
    for memory_id, damaged in zip(ids[:3], (b"", b"\x00" * 128, b"\xff" * 128), strict=True):
        with database.write() as connection:
            connection.execute(update(memories).where(memories.c.id == memory_id).values(embedding=damaged))
    caught_up(sync)
    assert len(searcher(sync, database).search(request("letter", limit=20), wait_s=0)) == 17
    assert sync.compare().n_missing == 3
    sync.rebuild("to see that it can be")
    assert sync.compare().n_missing == 3
