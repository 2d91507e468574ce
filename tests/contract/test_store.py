"""Rows and their events: one transaction, one row a key, gap-free numbers, tombstones that stay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError

from memory.database import Database
from memory.errors import ModelMismatch, NotFound, ServerAway
from memory.ingestion import Ingestion
from memory.schema import associations, index_events, memories
from memory.store.event_log import EventLog
from memory.store.memories import MemoryStore
from tests.fakes import WordEmbedder
from tests.invariants import assert_one_row_a_key
from tests.making import raw, store_all


def test_a_stored_memory_reads_back_as_it_was_given(database: Database) -> None:
    given = raw(
        "Inês aime le thé ☕",
        memory_type="preference",
        source="chat",
        metadata={"importance": 0.25, "nested": {"list": [1, 2.5, None, True, "ß"]}},
        uid="u1",
        namespace="ines",
        created_at="2025-03-04T20:12:09+02:00",
    )
    [memory_id] = store_all(database, given)
    memory = MemoryStore(database).get(memory_id)
    assert memory.content == given.content
    assert memory.memory_type is given.memory_type
    assert (memory.namespace, memory.uid, memory.source) == ("ines", "u1", "chat")
    assert memory.metadata == given.metadata
    assert memory.importance == 0.25
    assert memory.created_at == datetime(2025, 3, 4, 18, 12, 9, tzinfo=UTC)
    assert memory == MemoryStore(database).get_by_uid("u1", namespace="ines")


def test_the_same_batch_twice_is_stored_once_and_embedded_once(database: Database) -> None:
    embedder = WordEmbedder()
    ingestion = Ingestion(store=MemoryStore(database), embedder=embedder)
    batch = [raw(f"memory {i}", uid=str(i)) for i in range(10)]
    first, second = ingestion.store(batch), ingestion.store(batch)
    assert (first.n_new, first.n_known, first.seq) == (10, 0, 10)
    assert (second.n_new, second.n_known) == (0, 10)
    assert embedder.n_texts == 10
    assert EventLog(database).head() == 10
    assert_one_row_a_key(database)


def test_the_first_of_equal_keys_wins_within_a_batch_and_across_batches(database: Database) -> None:
    [first, _] = store_all(database, raw("first", uid="k"), raw("second", uid="k"))
    store_all(database, raw("third", uid="k"))
    assert MemoryStore(database).get(first).content == "first"
    assert EventLog(database).head() == 1


def test_the_same_uid_in_another_namespace_is_another_memory(database: Database) -> None:
    one, other = store_all(
        database, raw("mine", uid="k", namespace="a"), raw("yours", uid="k", namespace="b")
    )
    assert one != other


def test_a_deleted_memory_keeps_its_key_and_nothing_else(database: Database) -> None:
    [memory_id, other] = store_all(database, raw("secret", uid="k", metadata={"a": 1}), raw("other"))
    with database.write() as connection:
        connection.execute(
            insert(associations).values(
                from_id=other, to_id=memory_id, type="about", strength=1.0, created_at=datetime.now(UTC)
            )
        )
    seq = MemoryStore(database).delete(memory_id)
    assert seq == 3
    with database.read() as connection:
        row = connection.execute(select(memories).where(memories.c.id == memory_id)).one()
        assert (row.content, row.metadata, row.embedding) == (None, None, None)
        assert (row.uid, row.version) == ("k", 2)
        assert connection.execute(select(associations)).all() == []
        assert connection.scalars(select(index_events.c.op).order_by(index_events.c.seq)).all() == [
            "+",
            "+",
            "-",
        ]
    with pytest.raises(NotFound, match=f"id {memory_id}"):
        MemoryStore(database).get(memory_id)
    with pytest.raises(NotFound):
        MemoryStore(database).delete(memory_id)


def test_a_redelivered_memory_does_not_rise_from_its_tombstone(database: Database) -> None:
    given = raw("gone", uid="k")
    [memory_id] = store_all(database, given)
    MemoryStore(database).delete(memory_id)
    store_all(database, given)
    assert MemoryStore(database).counts().stored == 0
    assert MemoryStore(database).progress([given.key])[given.key].deleted


def test_an_id_is_never_used_again(database: Database) -> None:
    [last] = store_all(database, raw("last"))
    MemoryStore(database).delete(last)
    with database.write() as connection:
        connection.execute(memories.delete())
    [new] = store_all(database, raw("new"))
    assert new > last


def test_a_failed_transaction_leaves_neither_row_nor_event(database: Database) -> None:
    bad = raw("x", uid="bad")
    object.__setattr__(bad, "metadata", {"importance": 7})  # past validation: the database refuses it
    with pytest.raises((DBAPIError, ServerAway)):
        store_all(database, raw("good", uid="good"), bad)
    assert MemoryStore(database).counts().stored == 0
    assert EventLog(database).head() == 0


def test_f16_another_model_is_refused_and_both_are_named(database: Database) -> None:
    log = EventLog(database)
    assert log.identity() is None
    log.claim_model(fingerprint="old/32d", dim=32)
    log.claim_model(fingerprint="old/32d", dim=32)
    with pytest.raises(ModelMismatch, match=r"old/32d.*new/32d"):
        log.claim_model(fingerprint="new/32d", dim=32)


def test_many_keys_at_once_are_no_problem(database: Database) -> None:
    raws = [raw(f"memory {i}", uid=str(i)) for i in range(1200)]
    ids = store_all(database, *raws)
    assert len(set(ids)) == 1200
    assert len(MemoryStore(database).known(r.key for r in raws)) == 1200


def test_an_unreachable_database_is_said_to_be_away_without_its_password(database: Database) -> None:
    away = Database("postgresql+psycopg://someone:secret@127.0.0.1:1/memory")
    with pytest.raises(ServerAway) as caught:
        EventLog(away).head()
    assert "secret" not in str(caught.value)
