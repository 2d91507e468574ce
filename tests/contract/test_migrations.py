"""The migrations build just the tables that the code expects, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from memory.database import Database, known_revisions, migrations_config
from memory.memory_manager import MemoryManager
from memory.schema import index_clock, metadata
from tests.fakes import WordEmbedder


def test_migrated_tables_are_the_tables_of_the_schema(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    before = database.revision()
    database.upgrade()
    assert database.revision() == before == known_revisions()[-1]


def test_many_processes_may_migrate_an_empty_database_at_once(database_url: str) -> None:
    errors: list[BaseException] = []

    def upgrade() -> None:
        mine = Database(database_url)
        try:
            mine.upgrade()
        except BaseException as error:  # noqa: BLE001 (a thread's error must reach the test)
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    mine = Database(database_url)
    with mine.read() as connection:
        assert connection.execute(select(index_clock.c.head)).all() == [(0,)]
    mine.close()


def test_a_database_of_the_first_schema_is_upgraded_with_all_it_holds(new_url: str, home: Path) -> None:
    _make_first_schema(new_url)
    with MemoryManager(new_url, WordEmbedder(), home / "index") as manager:
        [hit, _] = manager.search_memories("a kite from the first days")
        assert hit["memory"].content == "a kite from the first days"
        assert (hit["memory"].importance, hit["memory"].metadata) == (0.25, {"importance": 0.25})
        assert hit["memory"].created_at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
        [related] = manager.get_related_memories(hit["memory"].id)
        assert related["memory"].content == "a letter about it"
        assert related["relationship"]["strength"] == 0.75
        assert manager.add_memory("a new one", "task").id > related["memory"].id
        assert manager.verify().equal
    database = Database(new_url)
    assert database.revision() == known_revisions()[-1]
    database.close()


def _make_first_schema(url: str) -> None:
    """Make what the first version made, with two memories, by SQL that no later change of code touches."""
    if url.startswith("sqlite:"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
    texts = ["a kite from the first days", "a letter about it"]
    embeddings = WordEmbedder().encode(texts)
    database = Database(url)
    with database.write() as connection:
        config = migrations_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, (content, embedding) in enumerate(zip(texts, embeddings, strict=True), start=1):
            connection.execute(
                text(
                    "INSERT INTO memories (namespace, uid, content, type, source, metadata, importance,"
                    " created_at, stored_at, embedding, model_fingerprint, status, version)"
                    " VALUES ('default', :uid, :content, 'episodic', 'user', :metadata, 0.25,"
                    " '2025-03-04 05:06:07.000000', '2025-03-04 05:06:07.000000', :embedding, :model,"
                    " 'ready', 1)"
                ),
                {
                    "uid": f"first-{number}",
                    "content": content,
                    "metadata": '{"importance": 0.25}',
                    "embedding": embedding.astype("<f4").tobytes(),
                    "model": WordEmbedder.fingerprint,
                },
            )
            connection.execute(
                text(
                    "INSERT INTO index_events (seq, memory_id, op, at)"
                    " VALUES (:n, :n, '+', '2025-03-04 05:06:07.000000')"
                ),
                {"n": number},
            )
        connection.execute(
            text("UPDATE index_clock SET head = 2, model_fingerprint = :model, model_dim = 32"),
            {"model": WordEmbedder.fingerprint},
        )
        connection.execute(
            text(
                "INSERT INTO associations (from_id, to_id, type, strength, created_at)"
                " VALUES (1, 2, 'led_to', 0.75, '2025-03-04 05:06:07.000000')"
            )
        )
    database.close()
