"""How the library is told what to use: arguments, environment, defaults; and that it keeps quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import pytest
import torch
from alembic import command
from sqlalchemy import text

from memory.database import Database, migrations_config
from memory.errors import ModelMismatch, SettingsError
from memory.memory_manager import MemoryManager
from memory.models import MemoryType
from tests.fakes import WordEmbedder
from tests.servers import Postgres

VARIABLES = ("MEMORY_DB_URL", "FAISS_INDEX_PATH", "EMBEDDING_MODEL", "USE_GPU")

# Opens twice, the second time on a damaged index, and uses every kind of call.
QUIET = """
import sys
from pathlib import Path
from memory.memory_manager import MemoryManager
from tests.fakes import WordEmbedder

for _ in range(2):
    with MemoryManager(sys.argv[1], WordEmbedder(), sys.argv[2]) as manager:
        first, second = manager.add_memories([{"content": "one"}, {"content": "two"}])
        manager.add_memory_association(first.id, second.id, "next")
        manager.search_memories("one", expand=1)
        manager.update_memory(first.id, content="three")
        manager.cleanup_old_memories(dry_run=False)
        manager.delete_memory(second.id)
        manager.save_index()
    for file in Path(sys.argv[2]).glob("snapshots/*/vectors.faiss"):
        file.write_bytes(b"damaged")
"""

# A row as the first revision of the tables had it.
OLD_MEMORY = """
INSERT INTO memories (namespace, uid, content, type, source, created_at, stored_at,
                      embedding, model_fingerprint, status, version)
VALUES ('default', 'u', 'an old letter', 'episodic', 'me', '2020-01-01 00:00:00', '2020-01-01 00:00:00',
        :vector, :model, 'ready', 1)
"""


class RecordedModel(WordEmbedder):
    """Stands where the real model would be loaded, and keeps what it was asked for."""

    def __init__(self, name: str, *, use_gpu: bool, **_more: Any) -> None:
        super().__init__()
        RecordedModel.asked = (name, use_gpu)

    asked: tuple[str, bool] | None = None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty, with no setting in the environment."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RecordedModel, "asked", None)
    return tmp_path


def test_tables_are_created_on_first_run(new_url: str, folder: Path) -> None:
    with MemoryManager(new_url, WordEmbedder(), folder / "index") as manager:
        assert manager.add_memory("hello", "task").id == 1


def test_an_older_database_is_upgraded_with_what_it_holds(new_url: str, home: Path, folder: Path) -> None:
    (home / "new").mkdir()
    database = Database(new_url)
    vector = WordEmbedder().encode(["an old letter"])[0].astype("<f4").tobytes()
    with database.write() as connection:
        config = migrations_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(OLD_MEMORY),
            {"vector": vector, "model": WordEmbedder.fingerprint},
        )
        connection.execute(
            text("UPDATE index_clock SET model_fingerprint = :model, model_dim = 32"),
            {"model": WordEmbedder.fingerprint},
        )
    database.close()
    with MemoryManager(new_url, WordEmbedder(), folder / "index") as manager:
        [result] = manager.search_memories(
            "an old letter", [MemoryType.EPISODIC], min_score=0.99, mode="vector"
        )
        assert result["memory"].uid == "u"


def test_without_arguments_it_is_memories_db_here_with_its_index_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.one_process.EmbeddingModel", RecordedModel)
    with MemoryManager() as manager:
        manager.add_memory("hello", "task")
    assert RecordedModel.asked == ("all-MiniLM-L6-v2", False)
    assert sorted(path.name for path in folder.iterdir()) == ["memories.db", "memories.faiss"]
    assert (folder / "memories.faiss" / "CURRENT").exists()


def test_the_environment_says_what_the_arguments_do_not(
    database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.one_process.EmbeddingModel", RecordedModel)
    monkeypatch.setenv("MEMORY_DB_URL", database_url)
    monkeypatch.setenv("FAISS_INDEX_PATH", str(folder / "elsewhere"))
    monkeypatch.setenv("EMBEDDING_MODEL", "some/model")
    monkeypatch.setenv("USE_GPU", "False")
    with MemoryManager() as manager:
        memory = manager.add_memory("hello", "task")
    assert RecordedModel.asked == ("some/model", False)
    assert (folder / "elsewhere" / "CURRENT").exists()
    with MemoryManager(database_url, WordEmbedder(), folder / "index") as manager:
        assert manager.get_memory(memory.id) == memory


def test_an_argument_wins_over_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.one_process.EmbeddingModel", RecordedModel)
    monkeypatch.setenv("MEMORY_DB_URL", "sqlite:///from_environment.db")
    monkeypatch.setenv("FAISS_INDEX_PATH", "from_environment")
    monkeypatch.setenv("EMBEDDING_MODEL", "from/environment")
    MemoryManager("sqlite:///mine.db", "my/model", "my_index").close()
    assert RecordedModel.asked == ("my/model", False)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.db", "my_index"]


@pytest.mark.parametrize(
    ("file", "index"),
    [("a/notes.db", "a/notes.faiss"), ("notes.sqlite", "notes.sqlite.faiss"), ("notes", "notes.faiss")],
)
def test_the_index_lies_beside_the_sqlite_file(folder: Path, file: str, index: str) -> None:
    with MemoryManager(f"sqlite:///{folder / file}", WordEmbedder()) as manager:
        manager.add_memory("hello", "task")
    assert (folder / index / "CURRENT").exists()


def test_on_postgres_the_index_lies_in_the_working_directory(postgres: Postgres, folder: Path) -> None:
    url = postgres.new_database().replace("postgresql+psycopg://", "postgresql://")
    with MemoryManager(url, WordEmbedder()) as manager:
        manager.add_memory("hello", "task")
    assert [path.name for path in folder.iterdir()] == ["memories.faiss"]


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        (
            "MEMORY_DB_URL",
            "mysql://host/name",
            "must be postgresql+psycopg://… or postgresql://… or sqlite://…",
        ),
        ("MEMORY_DB_URL", "sqlite://", "must be sqlite:///path of a file"),
        ("USE_GPU", "maybe", "must be a valid boolean"),
        ("FAISS_INDEX_PATH", "a_file", "must be a directory to write to"),
        ("MEMORY_MAX_CONTENT_BYTES", "0", "must be a whole number, 1 to 1048576"),
    ],
)
def test_a_bad_value_stops_the_start_with_its_name_and_what_is_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    (folder / "a_file").touch()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        MemoryManager(embedding_model=WordEmbedder())
    message = str(refusal.value)
    assert message.startswith(f"{variable} = '")
    assert value in message
    assert allowed in message


def test_a_model_that_cannot_be_loaded_stops_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", str(folder / "no_model"))
    with pytest.raises(
        SettingsError, match=r"EMBEDDING_MODEL = '.*no_model': must be a directory with a sent"
    ):
        MemoryManager()


def test_use_gpu_without_one_stops_the_start_and_says_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    monkeypatch.setenv("USE_GPU", "True")
    with pytest.raises(SettingsError, match="USE_GPU = True: must be False here, torch finds no CUDA device"):
        MemoryManager()
    with pytest.raises(SettingsError, match=r"USE_GPU = True: must be False .*faiss"):
        MemoryManager(embedding_model=WordEmbedder())  # the index asks for the GPU as well


def test_a_start_that_is_refused_leaves_nothing_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Another(WordEmbedder):
        fingerprint = "another@1/32d/float32/unit"

    MemoryManager(embedding_model=WordEmbedder()).close()
    with pytest.raises(ModelMismatch):
        MemoryManager(embedding_model=Another())
    with MemoryManager(embedding_model=WordEmbedder()) as manager:
        assert manager.owns_index


def test_nothing_is_printed_even_when_the_index_was_damaged(database_url: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET, database_url, str(home / "index")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (home / "index" / "quarantine").exists()
