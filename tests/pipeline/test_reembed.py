"""`memory reembed` as a process, with real models: the whole way from a refused start to a search."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from api_stub.commands.output import Exit
from api_stub.home import RunningStack, announce, hold_home
from api_stub.pipeline_client import PipelineClient
from api_stub.stack.children import ChildSpec, spawn, stop
from indexer.app import QueryModel, load_model
from memory.database import Database
from memory.embedding import DEFAULT_MODEL, EmbeddingModel, locate
from memory.errors import ModelMismatch, SearchUnavailable, ServerAway
from memory.memory_manager import MemoryManager
from memory.models import Identity, MemoryState
from memory.reembedding import reembed
from memory.schema import next_embeddings
from memory.settings import read_settings
from memory.store.event_log import EventLog
from memory.stream import IngestStream
from tests.fakes import WordEmbedder
from tests.making import raw, store_all
from tests.pipeline.stack import MEMORY, running_up
from tests.waiting import wait_until

N = 1500
SENTENCES = (
    "She prefers tea without sugar",
    "The red bicycle stands behind the house",
    "Tom plays the piano every evening",
    "The kite got caught in a tree",
)
RIGHT = "right"


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
def sentences(url: str, stream: IngestStream) -> str:
    """The URL of a database of the default model, beside an empty Redis."""
    with MemoryManager(url) as manager:
        manager.add_memories([{"content": sentence} for sentence in SENTENCES])
    return url


@pytest.fixture
def words(url: str) -> Iterator[Database]:
    """Many memories of a model that costs nothing."""
    database = Database(url)
    database.upgrade()
    EventLog(database).claim_model(fingerprint=WordEmbedder.fingerprint, dim=WordEmbedder.embedding_dim)
    store_all(database, *(raw(f"letter {i}") for i in range(N)))
    yield database
    database.close()


def test_f16_from_a_refused_start_to_a_search_with_the_new_model(
    home: Path, url: str, small_model: Path
) -> None:
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
            [found] = manager.search_memories(sentence, limit=1, mode="vector")
            assert found["memory"].content == sentence
            assert found["score"] > 0.999
    again = _reembed(home=home, url=url, EMBEDDING_MODEL=str(small_model)).stdout
    assert again.startswith("nothing to do: small@")


def test_int8_takes_over_as_another_model_does_and_gives_way_again(
    home: Path, url: str, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(small_model)
    with MemoryManager(url, name) as manager:
        manager.add_memories([{"content": sentence} for sentence in SENTENCES])
    int8 = {"EMBEDDING_MODEL": name, "EMBEDDING_PRECISION": "int8"}
    done = _reembed(home=home, url=url, **int8)
    assert "/384d/float32/unit to small@" in done.stdout
    assert f"Now set EMBEDDING_MODEL={name} EMBEDDING_PRECISION=int8, and restart" in done.stdout
    with pytest.raises(ModelMismatch, match=r"/int8/unit, .*/float32/unit: set EMBEDDING_MODEL \(and EMB"):
        MemoryManager(url, name)
    with monkeypatch.context() as patch:
        patch.setenv("EMBEDDING_PRECISION", "int8")
        with MemoryManager(url, name) as manager:
            [found] = manager.search_memories(SENTENCES[1], limit=1, mode="vector")
            assert found["memory"].content == SENTENCES[1]
            assert found["score"] > 0.999
    _reembed(home=home, url=url, EMBEDDING_MODEL=name)
    MemoryManager(url, name).close()


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
        assert _json("--model", DEFAULT_MODEL, home=home, url=None)["embedded"] == N


def test_f16_a_running_stack_ends_with_the_reason_when_its_model_is_replaced(
    home: Path, url: str, small_model: Path
) -> None:
    with (
        running_up(home, MEMORY_DB_URL=url, EMBEDDING_MODEL=DEFAULT_MODEL) as stack,
        stack.client() as client,
    ):
        outcomes = client.wait(client.enqueue_many(SENTENCES).receipts)
        assert {outcome.state for outcome in outcomes} == {MemoryState.SEARCHABLE}
        assert _answer(client, SENTENCES[0]) == RIGHT
        reembedding = _start("--model", str(small_model), home=home, url=url)
        _ask_until(lambda: stack.process.poll() is not None, client)
        assert reembedding.wait(timeout=60) == 0
        assert stack.process.returncode == Exit.REFUSED
    said = (home / "up.log").read_text()
    assert said.count("would starting it again help (exit code 78)") == 1
    assert "the stored vectors come from small@" in said
    assert "the configured model is all-MiniLM-L6-v2@" in said
    with (
        running_up(home, MEMORY_DB_URL=url, EMBEDDING_MODEL=str(small_model)) as stack,
        stack.client() as client,
    ):
        assert [_answer(client, sentence) for sentence in SENTENCES] == [RIGHT] * len(SENTENCES)
        assert client.verify()["equal"]


def test_what_waits_while_the_model_is_replaced_is_stored_by_the_new_one(
    home: Path, url: str, small_model: Path
) -> None:
    with running_up(home, MEMORY_DB_URL=url, EMBEDDING_MODEL=DEFAULT_MODEL) as stack:
        with stack.client() as client:
            client.wait(client.enqueue(SENTENCES[0]))
            stack.child("embed-1").suspend()
            last = client.enqueue(SENTENCES[1])
        _reembed("--model", str(small_model), home=home, url=url)
        wait_until(lambda: stack.process.poll() is not None, timeout_s=60, why="the stack stopped itself")
    with (
        running_up(home, MEMORY_DB_URL=url, EMBEDDING_MODEL=str(small_model)) as stack,
        stack.client() as client,
    ):
        assert client.wait(last, timeout_s=60).state is MemoryState.SEARCHABLE
        assert [_answer(client, sentence) for sentence in SENTENCES[:2]] == [RIGHT, RIGHT]


def test_f16_an_indexer_started_again_with_the_old_model_refuses_every_search(
    home: Path, sentences: str, small_model: Path, redis_url: str
) -> None:
    _reembed("--model", str(small_model), home=home, url=sentences)
    with _indexer(home, url=sentences, redis_url=redis_url, model=DEFAULT_MODEL) as (process, client):
        answers = _ask_until(
            lambda: process.poll() is not None or _log_of_indexer(home, "model_loaded"), client
        )
        answers.append(_answer(client, SENTENCES[0]))
        assert RIGHT not in answers
        _wake(client)
        assert process.wait(timeout=30) == os.EX_CONFIG
    assert any("from small@" in a and "configured model is all-MiniLM-L6-v2@" in a for a in answers)
    assert _log_of_indexer(home, "model_replaced") == 1
    assert _log_of_indexer(home, "Traceback") == 0


def test_f16_a_query_is_embedded_only_for_an_index_of_the_same_model(small_model: Path) -> None:
    model = EmbeddingModel(str(small_model))
    own = Identity(lineage="a", model_fingerprint=model.fingerprint, dim=model.embedding_dim)
    queries = QueryModel(lambda: load_model(read_settings(embedding_model=str(small_model))))
    assert (queries.embed(SENTENCES[0], of=own) == model.encode(SENTENCES[:1])[0]).all()
    with pytest.raises(ModelMismatch, match=r"come from another@1, the configured model is small@"):
        queries.embed(SENTENCES[0], of=replace(own, model_fingerprint="another@1"))


def test_an_indexer_whose_model_begins_to_serve_while_it_starts_begins_again_with_its_index(
    home: Path, sentences: str, small_model: Path, redis_url: str
) -> None:
    model = EmbeddingModel(str(small_model))
    database = Database(sentences)
    log = EventLog(database)
    epoch = log.progress().epoch
    with _indexer(home, url=sentences, redis_url=redis_url, model=str(small_model)) as (process, client):
        # The index is there at once, the model after seconds.
        wait_until(lambda: log.progress().epoch > epoch, timeout_s=60, why="the index is opened")
        reembed(database, model, on_progress=lambda _done, _left: None)
        _wake(client)
        assert process.wait(timeout=30) == os.EX_TEMPFAIL
    database.close()
    assert _log_of_indexer(home, "index_outdated") == 1
    with _indexer(home, url=sentences, redis_url=redis_url, model=str(small_model)) as (process, client):
        assert _answer(client, SENTENCES[0]) == RIGHT


def test_without_a_database_it_says_what_to_do(home: Path) -> None:
    assert "which database?" in _reembed(home=home, url=None, expect=3).stderr
    nowhere = f"sqlite:///{home}/none.db"
    said = _reembed("--model", DEFAULT_MODEL, home=home, url=nowhere, expect=6).stderr
    assert said == f"memory: MEMORY_DB_URL = {nowhere}: there is no such file\n"
    assert list(home.iterdir()) == []


def _ask_until(is_over: Callable[[], object], client: PipelineClient) -> list[str]:
    """Ask for each sentence again and again; return what came. A wrong answer fails the test."""
    answers: list[str] = []

    def ask() -> object:
        answers.append(_answer(client, SENTENCES[len(answers) % len(SENTENCES)]))
        return is_over()

    wait_until(ask, timeout_s=120, why="it came to its end")
    return answers


def _answer(client: PipelineClient, sentence: str) -> str:
    """Return RIGHT or the error. Only a query of the index's own model is that near to its own sentence."""
    try:
        [found] = client.search(sentence, limit=1, mode="vector", timeout_s=20)
    except (SearchUnavailable, ServerAway) as error:
        return str(error)
    assert found.memory.content == sentence
    assert found.score > 0.999
    return RIGHT


def _wake(client: PipelineClient) -> None:
    """Let the indexer look at the database, which with its slow tick it does not by itself."""
    with pytest.raises(SearchUnavailable):
        client.verify(timeout_s=5)


def _log_of_indexer(home: Path, word: str) -> int:
    return (home / "indexer.log").read_text().count(word)


@contextlib.contextmanager
def _indexer(
    home: Path, *, url: str, redis_url: str, model: str
) -> Iterator[tuple[subprocess.Popen[bytes], PipelineClient]]:
    """An indexer alone, that looks at the database at its start and then when it is told to."""
    settings = {"MEMORY_HOME": str(home), "MEMORY_DB_URL": url, "REDIS_URL": redis_url, "MEMORY_TICK_S": "60"}
    spec = ChildSpec(
        name="indexer",
        argv=(sys.executable, "-P", "-m", "indexer"),
        env={**settings, "EMBEDDING_MODEL": model},
        log_path=home / "indexer.log",
    )
    process = spawn(spec)
    try:
        with PipelineClient(read_settings(home=home, db_url=url, redis_url=redis_url)) as client:
            yield process, client
    finally:
        stop(process, spec, timeout_s=20)


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
    ours = ("MEMORY_", "EMBEDDING_MODEL", "EMBEDDING_ENGINE", "EMBEDDING_PRECISION")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    mine = {"MEMORY_HOME": str(home), **({"MEMORY_DB_URL": url} if url else {}), **environment}
    return subprocess.Popen(
        [*MEMORY, "reembed", *arguments],
        env={**inherited, **mine},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
