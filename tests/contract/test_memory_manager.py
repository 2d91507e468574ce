"""The library's own memory: added, read, changed, deleted, kept over a restart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memory.database import Database
from memory.errors import InvalidMemory, MemorySystemError, NotFound
from memory.memory_manager import MemoryManager
from memory.models import Memory, MemoryType
from tests.fakes import WordEmbedder
from tests.invariants import assert_events_contiguous, assert_one_row_a_key


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def manager(database_url: str, home: Path, embedder: WordEmbedder) -> Iterator[MemoryManager]:
    with MemoryManager(database_url, embedder, home / "index") as manager:
        yield manager


def test_the_arguments_have_the_promised_names_order_and_defaults() -> None:
    promised = {
        "__init__": {"db_url": None, "embedding_model": None, "faiss_index_path": None},
        "add_memory": {"content": ..., "memory_type": ..., "source": "user", "metadata": None},
        "get_memory": {"memory_id": ...},
        "update_memory": {"memory_id": ..., "content": None, "metadata": None},
        "delete_memory": {"memory_id": ...},
        "search_memories": {"query": ..., "memory_types": None, "limit": 5, "min_score": -1.0},
        "add_memory_association": {
            "memory_id": ...,
            "related_memory_id": ...,
            "relationship_type": ...,
            "strength": 1.0,
            "metadata": None,
        },
        "get_related_memories": {"memory_id": ..., "relationship_type": None, "min_strength": 0.0},
        "cleanup_old_memories": {
            "max_age_days": 30,
            "min_importance": 0.3,
            "memory_types": None,
            "dry_run": True,
        },
    }
    for name, arguments in promised.items():
        given = inspect.signature(getattr(MemoryManager, name)).parameters.values()
        positional = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
        shown = {p.name: ... if p.default is p.empty else p.default for p in positional}
        assert list(shown.items()) == list(arguments.items()), name


def test_add_memory_returns_a_memory_with_an_integer_id(manager: MemoryManager) -> None:
    memory = manager.add_memory("The sky is blue", MemoryType.SEMANTIC, "system", {"importance": 0.8, "n": 1})
    assert isinstance(memory, Memory)
    assert type(memory.id) is int
    assert (memory.content, memory.memory_type, memory.source) == ("The sky is blue", "semantic", "system")
    assert (memory.metadata, memory.importance, memory.version) == ({"importance": 0.8, "n": 1}, 0.8, 1)
    assert memory.namespace == "default"
    assert memory.last_accessed is None
    assert datetime.now(UTC) - memory.created_at < timedelta(minutes=1)
    assert manager.get_memory(memory.id) == memory


def test_add_memory_has_a_user_as_its_source_and_no_importance_unless_told(manager: MemoryManager) -> None:
    memory = manager.add_memory("The sky is blue", "semantic")
    assert (memory.source, memory.metadata, memory.importance) == ("user", {}, None)


def test_add_memory_takes_a_type_or_its_name_in_any_case(manager: MemoryManager) -> None:
    for kind in MemoryType:
        for given in (kind, kind.value, kind.value.upper(), kind.value.title()):
            assert manager.add_memory("any", given).memory_type is kind


def test_add_memory_refuses_what_is_wrong_by_name_and_stores_nothing(manager: MemoryManager) -> None:
    types = "one of episodic, semantic, reflection, task, preference, response"
    refused: list[tuple[dict[str, Any], str]] = [
        ({"memory_type": "dream"}, f"memory_type = 'dream': must be {types}"),
        ({"memory_type": None}, f"memory_type = None: must be {types}"),
        ({"content": " \n"}, r"content = ' \n': must be text that is not blank"),
        ({"content": 7}, "content = 7: must be text"),
        ({"content": "é" * 20_000}, "must be at most 32768 bytes, not 40000"),
        ({"metadata": {"importance": 1.5}}, "metadata.importance = 1.5: must be a number in 0..1"),
        ({"metadata": {"importance": "high"}}, "metadata.importance = 'high': must be a number in 0..1"),
        ({"metadata": ["a"]}, "metadata = ['a']: must be a JSON object"),
        ({"metadata": {"when": datetime.now(UTC)}}, "metadata.when = "),
        ({"source": ""}, "source = '': must be text that is not blank"),
        ({"uid": ""}, "uid = ''"),
        ({"namespace": " "}, "namespace = ' '"),
        ({"created_at": "yesterday"}, "created_at = 'yesterday': must be an ISO 8601"),
    ]
    for wrong, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.add_memory(**{"content": "any", "memory_type": "task", **wrong})
        assert message in str(refusal.value)
    assert manager.verify().n_memories == 0


def test_a_memory_keeps_the_creation_date_it_is_given(manager: MemoryManager) -> None:
    memory = manager.add_memory("an old letter", "episodic", created_at="2020-02-29T23:30:00+02:00")
    assert memory.created_at == datetime(2020, 2, 29, 21, 30, tzinfo=UTC)
    assert manager.get_memory(memory.id) == memory


def test_a_uid_is_stored_once_and_the_first_content_wins(
    manager: MemoryManager, database: Database, embedder: WordEmbedder
) -> None:
    first = manager.add_memory("the first", "task", uid="k")
    again = manager.add_memory("the second", "semantic", uid="k")
    assert again == first
    assert manager.add_memory("another's", "task", uid="k", namespace="other").id != first.id
    assert embedder.n_texts == 2
    assert_one_row_a_key(database)


def test_a_deleted_uid_is_refused_and_stays_deleted(manager: MemoryManager) -> None:
    manager.delete_memory(manager.add_memory("a secret", "task", uid="k").id)
    with pytest.raises(NotFound, match=r"'k'.* was deleted, and stays so"):
        manager.add_memory("a secret", "task", uid="k")
    assert manager.search_memories("secret") == []


def test_add_memories_returns_them_in_order_and_embeds_each_once(
    manager: MemoryManager, embedder: WordEmbedder
) -> None:
    drafts = [{"content": f"note {n}", "memory_type": "TASK", "uid": f"u{n % 8}"} for n in range(10)]
    memories = manager.add_memories(drafts)
    assert [m.content for m in memories] == [f"note {n % 8}" for n in range(10)]
    assert memories[9] == memories[1] == manager.get_memory(memories[1].id)
    assert embedder.n_texts == 8
    assert manager.add_memories(iter([])) == []
    assert manager.add_memories([{"content": "plain"}])[0].memory_type is MemoryType.EPISODIC


def test_add_memories_stores_all_or_none_and_names_the_position(
    manager: MemoryManager, database: Database
) -> None:
    good = {"content": "good"}
    refused: list[tuple[list[Any], str]] = [
        ([good, {"content": " "}, good], "memories[1].content = ' ': must be text that is not blank"),
        ([good, good, {"content": "x", "memory_type": "dream"}], "memories[2].memory_type = 'dream'"),
        ([{"content": "x", "metadata": {"importance": -1}}], "memories[0].metadata.importance = -1"),
        ([{"contents": "x"}], "memories[0].contents = 'x': must be one of content, "),
        ([good, "not a mapping"], "memories[1].memory = 'not a mapping'"),
        ([good, {"memory_type": "task"}], "memories[1].content"),
    ]
    for drafts, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.add_memories(drafts)
        assert message in str(refusal.value)
    assert manager.verify().n_memories == 0
    assert_events_contiguous(database)


def test_get_memory_returns_none_where_there_is_none(manager: MemoryManager) -> None:
    memory = manager.add_memory("hello", "task")
    manager.delete_memory(memory.id)
    assert manager.get_memory(memory.id) is None
    assert manager.get_memory(memory.id + 1) is None
    with pytest.raises(InvalidMemory, match="memory_id = 'one': must be a whole number"):
        manager.get_memory("one")  # type: ignore[arg-type]


def test_update_memory_embeds_a_new_content_again_under_the_same_id(
    manager: MemoryManager, embedder: WordEmbedder
) -> None:
    memory = manager.add_memory("purple elephants", "task", "me", {"importance": 0.4})
    changed = manager.update_memory(memory.id, content="green whales")
    assert (changed.id, changed.content, changed.version) == (memory.id, "green whales", 2)
    assert (changed.source, changed.metadata, changed.created_at) == (
        "me",
        {"importance": 0.4},
        memory.created_at,
    )
    assert manager.get_memory(memory.id) == changed
    [hit] = manager.search_memories("green whales", min_score=0.99, mode="vector")
    assert hit["memory"] == changed
    assert manager.search_memories("purple elephants", min_score=0.9, mode="vector") == []
    assert manager.verify().equal
    before = embedder.n_texts
    manager.update_memory(memory.id, source="you")
    assert embedder.n_texts == before  # the same words need no second look


def test_numbers_in_metadata_come_back_as_they_were_and_stay_changeable(manager: MemoryManager) -> None:
    numbers = {
        "whole": [0, -1, 2**63 - 1, -(2**63) + 1],
        "broken": [0.1, 5e-324, 1e300, -1.7976931348623157e308, 9.3e18, 2.0**63],
    }
    added = manager.add_memory("numbers", "semantic", metadata=numbers)
    stored = manager.get_memory(added.id)
    assert stored
    assert stored.metadata == numbers
    changed = manager.update_memory(added.id, metadata={"whole": None})
    assert changed.metadata == {"broken": numbers["broken"]}


def test_update_memory_merges_metadata_and_a_none_removes_a_key(manager: MemoryManager) -> None:
    given = {"importance": 0.9, "tags": ["a"], "place": {"city": "Lisbon", "street": "Rua"}, "old": 1}
    memory = manager.add_memory("hello", "task", metadata=given)
    patch = {
        "importance": 0.2,
        "tags": ["b"],
        "place": {"street": None, "zip": "1"},
        "old": None,
        "gone": None,
    }
    changed = manager.update_memory(memory.id, metadata=patch)
    assert changed.metadata == {"importance": 0.2, "tags": ["b"], "place": {"city": "Lisbon", "zip": "1"}}
    assert changed.importance == 0.2
    assert changed.content == "hello"
    assert manager.update_memory(memory.id, metadata={"importance": None}).importance is None


def test_update_memory_moves_a_memory_between_types(manager: MemoryManager) -> None:
    memory = manager.add_memory("call the vet", MemoryType.TASK)
    changed = manager.update_memory(memory.id, memory_type="Episodic", source="diary")
    assert (changed.memory_type, changed.source, changed.content) == ("episodic", "diary", "call the vet")
    assert manager.search_memories("vet", ["task"]) == []
    assert [r["memory"] for r in manager.search_memories("vet", ["episodic"])] == [changed]


def test_an_update_that_changes_nothing_leaves_the_version(manager: MemoryManager) -> None:
    memory = manager.add_memory("hello", "task", "me", {"n": 1})
    assert manager.update_memory(memory.id) == memory
    assert manager.update_memory(memory.id, "hello", {"n": 1}, memory_type="TASK", source="me") == memory
    assert manager.update_memory(memory.id, metadata={"never there": None}) == memory


def test_update_memory_refuses_what_is_wrong_and_changes_nothing(manager: MemoryManager) -> None:
    memory = manager.add_memory("hello", "task")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"content": " "}, "content = ' '"),
        ({"content": "new", "memory_type": "dream"}, "memory_type = 'dream'"),
        ({"content": "new", "metadata": {"importance": 2}}, "metadata.importance = 2"),
    ]
    for wrong, message in refused:
        with pytest.raises(InvalidMemory) as refusal:
            manager.update_memory(memory.id, **wrong)
        assert message in str(refusal.value)
    assert manager.get_memory(memory.id) == memory
    with pytest.raises(NotFound, match="no live memory with id 99"):
        manager.update_memory(99, content="new")


def test_delete_memory_removes_it_its_vector_and_its_associations(
    manager: MemoryManager, database: Database
) -> None:
    first, second = manager.add_memory("hello", "task"), manager.add_memory("hello again", "task")
    manager.add_memory_association(first.id, second.id, "next")
    manager.add_memory_association(second.id, first.id, "previous")
    assert manager.delete_memory(first.id)
    assert not manager.delete_memory(first.id)
    assert manager.get_memory(first.id) is None
    assert [r["memory"].id for r in manager.search_memories("hello")] == [second.id]
    assert manager.get_related_memories(second.id) == []
    comparison = manager.verify()
    assert (comparison.n_vectors, comparison.equal) == (1, True)
    assert_events_contiguous(database)
    with pytest.raises(NotFound):
        manager.update_memory(first.id, content="back again")


def test_an_id_is_never_used_again(manager: MemoryManager) -> None:
    memory = manager.add_memory("hello", "task")
    manager.delete_memory(memory.id)
    assert manager.add_memory("hello", "task").id > memory.id


def test_a_model_that_gives_unusable_vectors_does_no_lasting_harm(database_url: str, home: Path) -> None:
    class Broken(WordEmbedder):
        def __init__(self, spoil: Callable[[Any], Any]) -> None:
            super().__init__()
            self._spoil = spoil

        def encode(self, texts: Sequence[str]) -> Any:
            return self._spoil(super().encode(texts))

    too_long, no_numbers, no_length, too_few = (
        Broken(lambda rows: rows * 3),
        Broken(lambda rows: rows * float("nan")),
        Broken(lambda rows: rows * 0),
        Broken(lambda rows: rows[:, :16]),
    )
    for broken in (too_long, no_numbers, no_length, too_few):
        with MemoryManager(database_url, broken, home / "index") as manager, suppress(MemorySystemError):
            manager.add_memory("bread", "task")
    with MemoryManager(database_url, WordEmbedder(), home / "index") as manager:
        memory = manager.add_memory("a kite", "task")
        assert manager.search_memories("a kite")[0]["memory"] == memory
        assert manager.verify().equal
