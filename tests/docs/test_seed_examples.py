"""The two usage examples of the seed document, word for word, on SQLite and on Postgres."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memory.embedding import EmbeddingModel
from memory.memory_manager import MemoryManager
from memory.models import Memory, MemoryType
from tests.servers import Postgres

SEED_URL = '"sqlite:///memories.db"'

BASIC_USAGE = """\
from memory.memory_manager import MemoryManager
from memory.models import MemoryType

# Initialize the memory manager
with MemoryManager("sqlite:///memories.db") as memory_manager:
    # Add a memory
    memory = memory_manager.add_memory(
        content="The user's favorite color is blue",
        memory_type=MemoryType.SEMANTIC,
        source="user_input",
        metadata={"importance": 0.8}
    )
    
    # Search for similar memories
    results = memory_manager.search_memories(
        "What color does the user like?",
        memory_types=[MemoryType.SEMANTIC],
        limit=3
    )
    
    for result in results:
        print(f"Score: {result['score']:.3f} - {result['memory'].content}")
"""  # noqa: W293 (word for word)

ADVANCED_USAGE = """\
from memory.memory_manager import MemoryManager
from memory.models import MemoryType

# Initialize with custom settings
memory_manager = MemoryManager(
    db_url="sqlite:///memories.db",
    faiss_index_path="memories.faiss",
)

try:
    # Add multiple memories
    memories = [
        ("The sky is blue", MemoryType.SEMANTIC, "system"),
        ("I like pizza", MemoryType.EPISODIC, "user"),
        ("Python is a programming language", MemoryType.SEMANTIC, "system"),
    ]
    
    for content, mem_type, source in memories:
        memory_manager.add_memory(
            content=content,
            memory_type=mem_type,
            source=source,
            metadata={"importance": 0.7}
        )
    
    # Create associations between memories
    memory_manager.add_memory_association(
        memory_id=1,
        related_memory_id=3,
        relationship_type="related_to",
        strength=0.8
    )
    
    # Get related memories
    related = memory_manager.get_related_memories(
        memory_id=1,
        relationship_type="related_to"
    )
    
    # Clean up old memories
    stats = memory_manager.cleanup_old_memories(
        max_age_days=30,
        min_importance=0.3,
        dry_run=False
    )
    
finally:
    # Ensure resources are properly cleaned up
    memory_manager.close()
"""  # noqa: W293 (word for word)


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    """The default model, for what is done beside the examples."""
    return EmbeddingModel()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The seed's own URL, or a database on Postgres; in an empty working directory without settings."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MEMORY_DB_URL", "FAISS_INDEX_PATH", "EMBEDDING_MODEL", "USE_GPU"):
        monkeypatch.delenv(variable, raising=False)
    if request.param == "sqlite":
        return "sqlite:///memories.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


def test_the_basic_example_remembers_and_finds(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    named = _run(BASIC_USAGE, url)
    out, err = capfd.readouterr()
    [result] = named["results"]
    assert re.fullmatch(r"Score: 0\.\d{3} - The user's favorite color is blue\n", out)
    assert err == ""
    assert 0.3 < result["score"] < 1
    memory = named["memory"]
    assert isinstance(memory, Memory)
    assert (memory.id, memory.source, memory.memory_type) == (1, "user_input", MemoryType.SEMANTIC)
    assert (memory.importance, memory.metadata) == (0.8, {"importance": 0.8})
    assert result["memory"].content == memory.content


def test_the_advanced_example_relates_and_cleans_up(
    url: str, model: EmbeddingModel, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    named = _run(ADVANCED_USAGE, url)
    assert capfd.readouterr() == ("", "")
    [related] = named["related"]
    assert related["memory"].content == "Python is a programming language"
    assert related["relationship"]["type"] == "related_to"
    assert related["relationship"]["strength"] == 0.8
    assert related["relationship"]["direction"] == "outgoing"
    assert named["stats"] == {"total_found": 0, "deleted": 0, "skipped": 0}
    assert (Path("memories.faiss") / "CURRENT").exists()
    with MemoryManager(url, model) as manager:
        found = manager.search_memories("What food do I like?", limit=3)
        assert found[0]["memory"].content == "I like pizza"
        assert len(found) == 3


def test_the_examples_may_follow_each_other_and_run_again(
    url: str, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memory.one_process.EmbeddingModel", lambda *_args, **_more: model)  # loaded once
    for example in (BASIC_USAGE, ADVANCED_USAGE, ADVANCED_USAGE, BASIC_USAGE):
        named = _run(example, url)
    assert [r["rank"] for r in named["results"]] == [1, 2, 3]
    assert capfd.readouterr().out.count("The user's favorite color is blue\n") == 1 + 2


def test_a_program_that_is_the_example_prints_its_line_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BASIC_USAGE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"Score: 0\.\d{3} - The user's favorite color is blue\n", done.stdout)


def _run(example: str, url: str) -> dict[str, Any]:
    """Run an example as it stands, but for its database; return what it named."""
    assert example.count(SEED_URL) == 1
    named: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(example.replace(SEED_URL, f'"{url}"'), "the seed's example", "exec"), named)
    return named
