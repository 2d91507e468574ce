"""`memory reembed` as a process, with real models: the whole way from a refused start to a search."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from api_stub.home import RunningStack, announce, hold_home
from memory.database import Database
from memory.embedding import DEFAULT_MODEL, EmbeddingModel, locate
from memory.errors import ModelMismatch
from memory.memory_manager import MemoryManager
from memory.schema import next_embeddings
from memory.store.event_log import EventLog
from tests.fakes import WordEmbedder
from tests.making import raw, store_all
from tests.pipeline.stack import MEMORY
from tests.waiting import wait_until

N = 1500
SENTENCES = (
    "She prefers tea without sugar",
    "The red bicycle stands behind the house",
    "Tom plays the piano every evening",
    "The kite got caught in a tree",
)


@pytest.fixture(scope="module")
def small_model(shared_home: Path) -> Path:
    """A real model: the default one, without its last four layers."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (seconds of import)

    model: Any = SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
    transformer = model[0].auto_model
    transformer.encoder.layer = transformer.encoder.layer[:2]
    transformer.config.num_hidden_layers = 2
    model.save(str(shared_home / "small"))
    return shared_home / "small"


@pytest.fixture
def url(home: Path) -> str:
    return f"sqlite:///{home / 'memories.db'}"


@pytest.fixture
def words(url: str) -> Iterator[Database]:
    """Many memories of a model that costs nothing."""
    database = Database(url)
    database.upgrade()
    EventLog(database).claim_model(fingerprint=WordEmbedder.fingerprint, dim=WordEmbedder.embedding_dim)
    store_all(database, *(raw(f"letter {i}") for i in range(N)))
    yield database
    database.close()


def test_from_a_refused_start_to_a_search_with_the_new_model(home: Path, url: str, small_model: Path) -> None:
    with MemoryManager(url) as manager:
        manager.add_memories([{"content": sentence} for sentence in SENTENCES])
        [found] = manager.search_memories("a hot drink", limit=1)
        assert found["memory"].content == SENTENCES[0]
    with pytest.raises(ModelMismatch, match=r"from all-MiniLM-L6-v2@.* is small@.*: memory reembed"):
        MemoryManager(url, str(small_model))
    done = _reembed("--model", str(small_model), home=home, url=url)
    assert done.stdout.startswith("embedded 4 memories again: from all-MiniLM-L6-v2@")
    assert f"Now set EMBEDDING_MODEL={small_model}, and restart what still runs the old model" in done.stdout
    assert done.stderr == ""
    with pytest.raises(ModelMismatch, match=r"from small@.* is all-MiniLM-L6-v2@"):
        MemoryManager(url)
    with MemoryManager(url, str(small_model)) as manager:
        assert manager.verify().equal
        for sentence in SENTENCES:
            [found] = manager.search_memories(sentence, limit=1)
            assert found["memory"].content == sentence
            assert found["score"] > 0.999
    again = _reembed(home=home, url=url, EMBEDDING_MODEL=str(small_model)).stdout
    assert again.startswith("nothing to do: small@")


def test_json_is_all_that_is_printed(home: Path, words: Database, url: str, small_model: Path) -> None:
    done = _reembed("--json", "--model", str(small_model), home=home, url=url)
    fingerprint = EmbeddingModel(str(small_model)).fingerprint
    assert json.loads(done.stdout) == {
        "embedded": N,
        "from": WordEmbedder.fingerprint,
        "to": fingerprint,
        "switched": True,
    }
    assert done.stderr == ""


def test_ctrl_c_leaves_it_to_be_gone_on_with(
    home: Path, words: Database, url: str, small_model: Path
) -> None:
    process = _start("--model", str(small_model), home=home, url=url)
    wait_until(lambda: _n_made(words), timeout_s=60, why="some are embedded")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said == (
        f"memory reembed: stopped; {WordEmbedder.fingerprint} goes on serving. "
        "What was embedded is kept: the same command goes on from there\n"
    )
    n_made = _n_made(words)
    assert 0 < n_made < N
    assert _json("--model", str(small_model), home=home, url=url)["embedded"] == N - n_made


def test_the_database_is_found_by_the_running_stack(home: Path, words: Database, url: str) -> None:
    with hold_home(home):
        announce(home, RunningStack(pid=os.getpid(), redis_url="redis://nowhere", db_url=url, ready=False))
        assert _json(home=home, url=None)["embedded"] == N


def test_without_a_database_it_says_what_to_do(home: Path) -> None:
    assert "which database?" in _reembed(home=home, url=None, expect=3).stderr
    said = _reembed(home=home, url=f"sqlite:///{home}/none.db", expect=6).stderr
    assert said == f"memory: MEMORY_DB_URL = sqlite:///{home}/none.db: there is no such file\n"
    assert list(home.iterdir()) == []


def _n_made(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(next_embeddings)) or 0


def _json(*arguments: str, home: Path, url: str | None) -> Any:
    return json.loads(_reembed(*arguments, "--json", home=home, url=url).stdout)


def _reembed(
    *arguments: str, home: Path, url: str | None, expect: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    process = _start(*arguments, home=home, url=url, **environment)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == expect, (stdout, stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _start(*arguments: str, home: Path, url: str | None, **environment: str) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEMORY_", "EMBEDDING_"))}
    mine = {"MEMORY_HOME": str(home), **({"MEMORY_DB_URL": url} if url else {}), **environment}
    return subprocess.Popen(
        [*MEMORY, "reembed", *arguments],
        env={**inherited, **mine},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
