"""Audit and repair: every kind of damage is found by its name, mended, and what was replaced is kept."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from memory.audit import Auditor, Kind, Pace
from memory.database import Database, database_now
from memory.index_sync import IndexSync
from memory.ingestion import Ingestion
from memory.models import Memory, MemoryId
from memory.postings import Text
from memory.repair import Repair, Repairer
from memory.schema import associations, index_clock, index_events, memories, next_embeddings
from memory.settings import read_settings
from memory.snapshot import SnapshotFolder
from memory.store.auditing import Auditing
from memory.store.memories import MemoryStore
from memory.store.vectors import read_vectors
from memory.stream import IngestStream
from memory.stream_watch import StreamWatch
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_index_equals_database
from tests.making import caught_up, open_index, raw, request, searcher, store_all, text_of

N = 40
DIM = WordEmbedder.embedding_dim


@dataclass(frozen=True, kw_only=True)
class World:
    """Forty memories in an index with two snapshots, one memory deleted, and who audits and repairs them."""

    database: Database
    home: Path
    sync: IndexSync
    folder: SnapshotFolder
    auditor: Auditor
    ids: list[int]
    dead: int

    def kinds(self, **options: Any) -> list[Kind]:
        return [finding.kind for finding in self.auditor.audit(**options).findings]

    def repair(self) -> Repair:
        repairer = Repairer(sync=self.sync, database=self.database, folder=self.folder, auditor=self.auditor)
        return repairer.repair()

    def kept(self) -> list[Path]:
        quarantine = self.home / "index" / "quarantine"
        return sorted(quarantine.iterdir()) if quarantine.is_dir() else []

    def change(self, memory_id: int, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(update(memories).where(memories.c.id == memory_id).values(**values))

    def unit(self, *texts: str) -> Any:
        return WordEmbedder().encode(texts)


@pytest.fixture
def world(database: Database, home: Path) -> World:
    sync = open_index(database, home)
    ids = store_all(database, *(raw(f"memory number {i}") for i in range(N)))
    caught_up(sync).save_snapshot()
    ids += store_all(database, *(raw(f"later memory {i}") for i in range(N)))
    dead = ids.pop()
    MemoryStore(database).delete(MemoryId(dead))
    caught_up(sync).save_snapshot()
    folder = SnapshotFolder(home / "index")
    auditor = Auditor(index=sync, database=database, folder=folder, watch=None, settings=read_settings())
    return World(database=database, home=home, sync=sync, folder=folder, auditor=auditor, ids=ids, dead=dead)


def _lose_a_vector(world: World) -> None:
    world.sync.replica.content.index.remove([world.ids[3]])
    world.sync.replica.content.catalogue.drop([world.ids[3]])


def _invent_a_vector(world: World) -> None:
    content = world.sync.replica.content
    content.index.add_embeddings(world.unit("nothing"), [9999])
    content.catalogue.put([9999], [("default", "episodic")])


def _lose_a_line_of_the_catalogue(world: World) -> None:
    world.sync.replica.content.catalogue.drop([world.ids[3]])


def _misplace_a_line_of_the_catalogue(world: World) -> None:
    world.sync.replica.content.catalogue.put([world.ids[3]], [("somebody else", "episodic")])


def _change_a_vector_in_the_index(world: World) -> None:
    world.sync.replica.content.index.add_embeddings(world.unit("something else"), [world.ids[3]])


def _tear_a_stored_vector(world: World) -> None:
    world.change(world.ids[3], embedding=b"\x00" * 7)


def _zero_a_stored_vector(world: World) -> None:
    world.change(world.ids[3], embedding=b"\x00" * (4 * DIM))


def _store_a_vector_of_another_model(world: World) -> None:
    world.change(world.ids[3], model_fingerprint="another@1/32d/float32/unit")


def _flip_a_bit(world: World, name: str) -> None:
    file = world.home / "index" / "snapshots" / name / "vectors.faiss"
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)


def _damage_the_current_snapshot(world: World) -> None:
    _flip_a_bit(world, world.folder.names()[-1])


def _damage_the_older_snapshot(world: World) -> None:
    _flip_a_bit(world, world.folder.names()[0])


def _lose_the_current_snapshot(world: World) -> None:
    shutil.rmtree(world.home / "index" / "snapshots" / world.folder.names()[-1])


def _lose_an_event(world: World) -> None:
    with world.database.write() as connection:
        connection.execute(delete(index_events).where(index_events.c.seq == 2 * N - 5))


def _put_back_the_clock(world: World) -> None:
    with world.database.write() as connection:
        connection.execute(update(index_clock).values(head=index_clock.c.head - 1))


def _lose_words(world: World) -> None:
    _reword(world, removed=[world.ids[3]])


def _invent_words(world: World) -> None:
    _reword(world, texts=[text_of(10_000)])


def _change_words(world: World) -> None:
    _reword(world, texts=[text_of(world.ids[3], content="another content")])


def _change_an_author(world: World) -> None:
    with world.database.read() as connection:
        (row,) = read_vectors(connection, [MemoryId(world.ids[3])])
    _reword(world, texts=[row.text._replace(author="Mallory")])


def _reword(world: World, *, removed: Sequence[int] = (), texts: Sequence[Text] = ()) -> None:
    words = world.sync.replica.content.words
    words.take(words.change(removed=removed, texts=texts))


def _give_a_tombstone_words(world: World) -> None:
    world.change(world.dead, content="what was to be forgotten")


def _associate_a_tombstone(world: World) -> None:
    with world.database.write() as connection:
        link = {"from_id": world.dead, "to_id": world.ids[0], "type": "after", "strength": 1.0}
        connection.execute(insert(associations).values(**link, created_at=database_now(connection)))


def _embed_a_tombstone(world: World) -> None:
    with world.database.write() as connection:
        row = {"memory_id": world.dead, "model_fingerprint": "next", "embedding": b"\x00" * 8}
        connection.execute(insert(next_embeddings).values(**row))


DAMAGE: list[tuple[Callable[[World], None], Kind]] = [
    (_lose_a_vector, Kind.INDEX_MISSING),
    (_invent_a_vector, Kind.INDEX_EXTRA),
    (_lose_a_line_of_the_catalogue, Kind.CATALOGUE_DIFFERENT),
    (_misplace_a_line_of_the_catalogue, Kind.CATALOGUE_DIFFERENT),
    (_change_a_vector_in_the_index, Kind.VECTOR_DIFFERENT),
    (_lose_words, Kind.WORDS_DIFFERENT),
    (_invent_words, Kind.WORDS_DIFFERENT),
    (_change_words, Kind.WORDS_DIFFERENT),
    (_change_an_author, Kind.WORDS_DIFFERENT),
    (_tear_a_stored_vector, Kind.VECTOR_DAMAGED),
    (_zero_a_stored_vector, Kind.VECTOR_DAMAGED),
    (_store_a_vector_of_another_model, Kind.VECTOR_DAMAGED),
    (_damage_the_current_snapshot, Kind.SNAPSHOT_DAMAGED),
    (_damage_the_older_snapshot, Kind.SNAPSHOT_DAMAGED),
    (_lose_the_current_snapshot, Kind.SNAPSHOT_LOST),
    (_lose_an_event, Kind.EVENTS_MISSING),
    (_put_back_the_clock, Kind.EVENTS_ABOVE_HEAD),
    (_give_a_tombstone_words, Kind.TOMBSTONE_NOT_EMPTY),
    (_associate_a_tombstone, Kind.TOMBSTONE_NOT_EMPTY),
    (_embed_a_tombstone, Kind.TOMBSTONE_NOT_EMPTY),
]
every_damage = pytest.mark.parametrize(
    ("damage", "kind"), DAMAGE, ids=[damage.__name__.strip("_") for damage, _ in DAMAGE]
)


def test_what_was_never_damaged_is_clean_and_a_repair_of_it_changes_nothing(world: World) -> None:
    assert world.kinds() == []
    names = world.folder.names()
    assert world.repair().done == ()
    assert (world.folder.names(), world.kept()) == (names, [])


@every_damage
def test_damage_is_found_by_its_name_and_mended_and_a_second_repair_finds_nothing(
    world: World, damage: Callable[[World], None], kind: Kind
) -> None:
    damage(world)
    assert world.kinds() == [kind]
    first = world.repair()
    assert [finding.kind for finding in first.before.findings] == [kind]
    assert first.done
    assert first.after.clean
    assert_index_equals_database(world.sync)
    assert_events_contiguous(world.database)
    names, kept = world.folder.names(), world.kept()
    second = world.repair()
    assert (second.before.clean, second.done, second.kept) == (True, (), ())
    assert (world.folder.names(), world.kept()) == (names, kept)
    again = open_index(world.database, world.home)
    assert_index_equals_database(again)


@every_damage
def test_an_audit_alone_changes_nothing(world: World, damage: Callable[[World], None], kind: Kind) -> None:
    damage(world)
    first = world.auditor.audit()
    assert world.auditor.audit().as_json()["findings"] == first.as_json()["findings"]
    assert world.kept() == []


def test_a_snapshot_that_is_replaced_lies_in_the_quarantine_as_it_was(world: World) -> None:
    name = world.folder.names()[-1]
    _damage_the_current_snapshot(world)
    damaged = (world.home / "index" / "snapshots" / name / "vectors.faiss").read_bytes()
    repair = world.repair()
    [kept] = world.kept()
    assert repair.kept == (str(kept),)
    assert kept.name.startswith(name)
    assert (kept / "vectors.faiss").read_bytes() == damaged
    assert world.folder.current() in world.folder.names()


def test_an_older_snapshot_that_is_damaged_leaves_the_current_one_current(world: World) -> None:
    older, current = world.folder.names()
    _damage_the_older_snapshot(world)
    world.repair()
    assert current in world.folder.names()
    assert older not in world.folder.names()


def test_every_snapshot_that_may_hold_a_wrong_index_is_kept_in_the_quarantine(world: World) -> None:
    names = world.folder.names()
    _change_a_vector_in_the_index(world)
    repair = world.repair()
    assert [path.name[: len(names[0])] for path in world.kept()] == names
    assert len(repair.kept) == 2
    assert len(world.folder.names()) == 1


def test_a_damaged_vector_is_kept_and_its_memory_is_embedded_again(world: World) -> None:
    _zero_a_stored_vector(world)
    world.repair()
    [folder] = world.kept()
    [line] = (folder / "vectors.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["memory_id"] == world.ids[3]
    assert base64.b64decode(found["embedding"]) == b"\x00" * (4 * DIM)
    store = MemoryStore(world.database)
    assert store.counts().pending == 1
    assert len(world.sync.replica.content.index) == len(world.ids) - 1
    memory = store.get(MemoryId(world.ids[3]))
    Ingestion(store=store, embedder=WordEmbedder()).store([_raw_of(memory)])
    assert len(caught_up(world.sync).replica.content.index) == len(world.ids)
    assert world.kinds() == []
    [hit] = searcher(world.sync, world.database).search(request(memory.content, limit=1), wait_s=0)
    assert hit.memory.id == memory.id


def test_an_audit_of_a_sample_looks_at_others_each_time_and_a_repair_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.audit.SAMPLED_VECTORS", 5)
    _change_a_vector_in_the_index(world)
    audits = [world.auditor.audit() for _ in range(60)]
    assert {audit.comparison.n_sampled for audit in audits} == {5}
    assert {audit.clean for audit in audits} == {True, False}
    repair = world.repair()
    assert repair.before.comparison.n_sampled == len(world.ids)
    assert not repair.before.clean


def test_events_of_a_pause_are_applied_and_harm_no_audit(world: World) -> None:
    n_pauses = 0

    def pause() -> None:
        nonlocal n_pauses
        n_pauses += 1
        store_all(world.database, raw(f"written in pause {n_pauses}"))
        caught_up(world.sync).save_snapshot()

    assert world.kinds(pace=Pace(pause=pause)) == []
    assert n_pauses >= 3


def test_rows_are_looked_at_page_by_page(world: World) -> None:
    for memory_id in world.ids[::10]:
        world.change(memory_id, embedding=b"")
    pages: list[int] = []
    found = Auditing(world.database, page=7).rows(
        dim=DIM, pending_since=timedelta(hours=1), pause=lambda: pages.append(1)
    )
    assert found.without_vector == world.ids[::10]
    assert len(pages) == -(-2 * N // 7)


def test_what_waits_too_long_for_its_embedding_is_named_and_not_repaired(world: World) -> None:
    with world.database.write() as connection:
        long_ago = database_now(connection) - timedelta(hours=2)
        values = {"embedding": None, "status": "pending", "stored_at": long_ago}
        connection.execute(update(memories).where(memories.c.id == world.ids[3]).values(**values))
        connection.execute(update(index_clock).values(head=index_clock.c.head + 1))
        head = connection.scalar(select(index_clock.c.head))
        event = {"seq": head, "memory_id": world.ids[3], "op": "+", "at": long_ago}
        connection.execute(insert(index_events).values(**event))
    assert world.kinds() == [Kind.PENDING_TOO_LONG]
    repair = world.repair()
    assert repair.done == ()
    assert not repair.after.clean
    [said] = repair.as_json()["repair"]["not_repaired"]
    assert said.startswith("pending_too_long: the maintenance tick lets them be embedded")


def test_entries_that_nobody_acknowledges_are_named_and_not_repaired(
    world: World, stream: IngestStream, redis_url: str
) -> None:
    stream.push([b"one", b"two"], lane="bulk")
    for _ in range(3):
        stream.read_new("gone", count=1)
        pending = stream.pending(consumer=None, min_idle_s=0, count=10)
        stream.claim(pending[:1], consumer="gone", min_idle_s=0)
    watch = StreamWatch(redis_url)
    settings = read_settings(max_deliveries=2)
    auditor = Auditor(
        index=world.sync, database=world.database, folder=world.folder, watch=watch, settings=settings
    )
    findings = {finding.kind: finding.where for finding in auditor.audit().findings}
    [first] = findings[Kind.ENTRY_DELIVERED_TOO_OFTEN]
    assert str(first).startswith("bulk:")
    assert list(findings) == [Kind.ENTRY_DELIVERED_TOO_OFTEN], "nothing was left for so long yet"
    idle, often = watch.left_behind(idle_s=-1, n_deliveries=100)
    assert (len(idle), often) == (2, [])
    watch.close()


def test_an_audit_holds_ids_in_memory_and_not_vectors(world: World) -> None:
    differences = world.sync.differences(n_sampled=5, rng=np.random.default_rng(1))
    assert differences.n_sampled == 5
    assert differences.missing.dtype == np.int64


def _raw_of(memory: Memory) -> Any:
    return raw(memory.content, uid=memory.uid, namespace=memory.namespace, memory_type=memory.memory_type)
