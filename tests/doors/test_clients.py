"""Every client does the same: straight to the pipeline, over HTTP, and with a memory of its own."""

from __future__ import annotations

import asyncio
import inspect
import math
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from api_stub.async_client import AsyncMemoryClient
from api_stub.client import MemoryClient
from api_stub.embedded_client import EmbeddedClient
from api_stub.http_client import HttpClient
from api_stub.pipeline_client import PipelineClient
from memory.cleanup import CleanupPolicy
from memory.errors import (
    AccessDenied,
    InvalidMemory,
    NotFound,
    NotYetSearchable,
    ServerAway,
    SettingsError,
    TooManyRequests,
)
from memory.models import MemoryState, MemoryType, Receipt
from memory.settings import read_settings
from tests.doors.api import free_port, new_key
from tests.pipeline.stack import Stack


@pytest.fixture(scope="module")
def pipeline(stack: Stack) -> Iterator[MemoryClient]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def http(stack: Stack, url: str) -> Iterator[MemoryClient]:
    with MemoryClient.from_url(url, key=new_key(stack, scopes="read write admin")) as client:
        yield client


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryClient]:
    path = tmp_path_factory.mktemp("embedded") / "memories.db"
    with EmbeddedClient(read_settings(db_url=f"sqlite:///{path}", index_path=None)) as client:
        yield client


@pytest.fixture(params=["pipeline", "http", "embedded"])
def client(request: pytest.FixtureRequest) -> MemoryClient:
    found: MemoryClient = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def namespace() -> str:
    return f"ns {uuid.uuid4()}"


def test_a_memory_goes_through_its_whole_life(client: MemoryClient, namespace: str) -> None:
    said = datetime(2025, 3, 4, 18, 12, 9, tzinfo=UTC)
    receipt = client.enqueue(
        "Inês is allergic to hazelnuts",
        memory_type="SEMANTIC",
        source="chat:1",
        metadata={"importance": 0.9, "author": "Inês"},
        uid="nuts",
        namespace=namespace,
        created_at=said,
    )
    assert receipt == Receipt(uid="nuts", namespace=namespace)
    outcome = client.wait(receipt, timeout_s=60)
    assert outcome.state is MemoryState.SEARCHABLE
    assert outcome.id is not None
    stored = client.get(outcome.id)
    assert (stored.content, stored.memory_type, stored.source) == (
        "Inês is allergic to hazelnuts",
        MemoryType.SEMANTIC,
        "chat:1",
    )
    assert (stored.created_at, stored.importance, stored.metadata["author"]) == (said, 0.9, "Inês")
    assert client.get_by_uid("nuts", namespace=namespace) == stored
    [hit] = client.search(
        "what must she not eat?",
        namespace=namespace,
        min_seq=outcome.seq,
        memory_types=MemoryType.SEMANTIC,
        source="chat:1",
        since=said,
        where={"metadata.author": "Inês"},
        mode="HYBRID",
        explain=True,
    )
    assert (hit.memory.id, hit.rank) == (outcome.id, 1)
    assert hit.terms
    client.wait(client.update(outcome.id, content="She may eat everything", metadata={"author": None}), 60)
    changed = client.get(outcome.id)
    assert (changed.content, changed.metadata) == ("She may eat everything", {"importance": 0.9})
    assert client.counts(namespace=namespace).searchable == 1
    seq = client.delete(outcome.id)
    assert client.search("everything", namespace=namespace, min_seq=seq) == []
    with pytest.raises(NotFound, match=f"no live memory with id {outcome.id}"):
        client.get(outcome.id)
    with pytest.raises(NotFound):
        client.get_by_uid("nuts", namespace=namespace)
    assert client.wait(client.enqueue("again", uid="nuts", namespace=namespace), 60).state == "deleted"


def test_many_are_handed_over_and_the_bad_ones_are_told_apart(client: MemoryClient, namespace: str) -> None:
    good = [{"content": f"note {n}", "uid": f"{n}", "namespace": namespace} for n in range(3)]
    drafts = [good[0], {"content": " "}, good[1], {"content": "x", "colour": 1}, good[2]]
    handed = client.enqueue_many(drafts)
    assert [receipt.uid for receipt in handed] == ["0", "1", "2"]
    assert [one.position for one in handed.rejected] == [1, 3]
    assert "content" in handed.rejected[0].rule
    outcomes = client.wait(handed, timeout_s=60)
    assert {outcome.state for outcome in outcomes} == {MemoryState.SEARCHABLE}
    refused = client.enqueue_many([{"content": "x" * 10**6, "namespace": namespace}] * 2)
    assert (len(refused), [one.position for one in refused.rejected]) == (0, [0, 1])
    assert [outcome.receipt.uid for outcome in client.outcomes(handed.receipts)] == ["0", "1", "2"]
    first = client.list_memories(namespace=namespace, limit=2)
    rest = client.list_memories(namespace=namespace, limit=2, after=first[-1].id)
    assert sorted(memory.uid for memory in [*first, *rest]) == ["0", "1", "2"]
    assert client.list_memories(namespace=namespace, memory_types=["task", MemoryType.RESPONSE]) == []
    [found] = client.list_memories(namespace=namespace, where={"uid": {"in": ["2", "none"]}})
    assert found.uid == "2"


def test_memories_are_linked_and_read_with_what_was_said_around(client: MemoryClient, namespace: str) -> None:
    drafts = [
        {"content": text, "namespace": namespace, "source": "chat", "metadata": {"position": place}}
        for place, text in enumerate(["the vet came", "he left a bill", "she paid it"])
    ]
    outcomes = client.wait(client.enqueue_many(drafts), timeout_s=60)
    vet, bill, paid = (int(outcome.id or 0) for outcome in outcomes)
    assert [memory.content for memory in client.context(bill, before=1, after=1)] == [
        "the vet came",
        "he left a bill",
        "she paid it",
    ]
    made = client.associate(vet, bill, "led_to", strength=0.5, metadata={"by": "hand"})
    assert (made.memory_id, made.related_memory_id, made.strength) == (vet, bill, 0.5)
    client.associate(bill, paid, "led_to", strength=0.5)
    related = client.related(vet, direction="outgoing", depth=2)
    assert [(one.memory.id, one.relation.strength) for one in related] == [(bill, 0.5), (paid, 0.25)]
    assert client.related(vet, relationship_type="other") == []
    assert client.dissociate(vet, bill, "led_to") == 1
    assert client.related(vet) == []


def test_a_cleanup_counts_and_then_forgets(client: MemoryClient, namespace: str) -> None:
    old = {"created_at": "2001-01-01", "metadata": {"importance": 0.1}, "namespace": namespace}
    client.wait(
        client.enqueue_many([{"content": "old", **old}, {"content": "new", "namespace": namespace}]), 60
    )
    policy = CleanupPolicy(max_age_days=30, min_importance=0.3, namespace=namespace)
    assert client.cleanup(policy).total_found == 1
    assert client.counts(namespace=namespace).stored == 2
    report = client.cleanup(policy, dry_run=False)
    assert (report.deleted, report.by_namespace) == (1, {namespace: 1})
    assert [memory.content for memory in client.list_memories(namespace=namespace)] == ["new"]


def test_what_is_not_allowed_is_the_same_error_everywhere(client: MemoryClient, namespace: str) -> None:
    with pytest.raises(InvalidMemory, match=r"importance = 2: must be a number in 0\.\.1"):
        client.enqueue("x", metadata={"importance": 2}, namespace=namespace)
    with pytest.raises(InvalidMemory, match="must be text that is not blank"):
        client.enqueue("  ", namespace=namespace)
    with pytest.raises(InvalidMemory, match="limit = 0"):
        client.search("x", limit=0)
    with pytest.raises(InvalidMemory, match="colour"):
        client.search("x", where={"colour": 1})
    with pytest.raises(InvalidMemory, match="related_memory_id"):
        client.associate(1, 0, "x")
    with pytest.raises(InvalidMemory):
        client.list_memories(limit=1001)
    with pytest.raises(NotFound):
        client.update(2**52, content="x")
    with pytest.raises(NotFound):
        client.delete(2**52)
    stored = client.wait(client.enqueue("a kite", namespace=namespace), timeout_s=60)
    with pytest.raises(InvalidMemory, match="memory_type"):
        client.update(int(stored.id or 0), memory_type="song")


_SAID = datetime(2025, 3, 4, tzinfo=UTC)
REFUSED: dict[str, Callable[[Any, int], object]] = {
    "memory_id = 'abc': must be a whole number": lambda client, _: client.get("abc"),
    "memory_id = True: must be a whole number": lambda client, _: client.get(True),
    "memory_id = 9223372036854775808: must be": lambda client, _: client.get(2**63),
    "memory_id = 1.0: must be": lambda client, _: client.context(1.0),
    "memory_id = 0: must be": lambda client, _: client.delete(0),
    "memory_id = None: must be": lambda client, _: client.update(None, content="x"),
    "before = -1: must be a whole number in 0..100": lambda client, live: client.context(live, before=-1),
    "after = 101: must be a whole number in 0..100": lambda client, live: client.context(live, after=101),
    "uid = 5: must be text": lambda client, _: client.get_by_uid(5),
    "uid = '\\ud800': must be text without lone": lambda client, _: client.get_by_uid("\ud800"),
    "namespace = ' ': must be text": lambda client, _: client.get_by_uid("x", namespace=" "),
    "min_seq = 'x': must be a whole number": lambda client, _: client.search("x", min_seq="x"),
    "min_seq = nan: must be": lambda client, _: client.search("x", min_seq=math.nan),
    "limit = 1.5: must be": lambda client, _: client.search("x", limit=1.5),
    "recency = nan: must be a number": lambda client, _: client.search("x", recency=math.nan),
    "memory_types = (): must be a list": lambda client, _: client.search("x", memory_types=()),
    "source = []: must be": lambda client, _: client.search("x", source=[]),
    "memory_types = []: must be a list": lambda client, _: client.list_memories(memory_types=[]),
    "memory_types = 5: must be": lambda client, _: client.list_memories(memory_types=5),
    "memory_type = 'song': must be one": lambda client, _: client.list_memories(memory_types=["song"]),
    "memory_type = 5: must be one": lambda client, _: client.list_memories(memory_types=["task", 5]),
    "limit = True: must be a whole number": lambda client, _: client.list_memories(limit=True),
    "limit = 0: must be": lambda client, _: client.list_memories(limit=0),
    "after = 'x': must be a whole number": lambda client, _: client.list_memories(after="x"),
    "namespace = '': must be text": lambda client, _: client.list_memories(namespace=""),
    "namespace = 5: must be text": lambda client, _: client.counts(namespace=5),
    "where = {}: must be a mapping": lambda client, _: client.list_memories(where={}),
    "where = 'colour': must be any of": lambda client, _: client.list_memories(where={"colour": 1}),
    "where.metadata.x.eq = nan: must be": lambda client, _: client.list_memories(
        where={"metadata.x": math.nan}
    ),
    "where.metadata.x.eq = datetime": lambda client, _: client.list_memories(where={"metadata.x": _SAID}),
    "where.uid.eq = '\\ud800': must be": lambda client, _: client.list_memories(where={"uid": "\ud800"}),
    "content = 5: must be text": lambda client, live: client.update(live, content=5),
    "content = ' ': must be text": lambda client, live: client.update(live, content=" "),
    "memory_type = 'song': must be one of": lambda client, live: client.update(live, memory_type="song"),
    "source = '': must be text": lambda client, live: client.update(live, source=""),
    "metadata = []: must be a JSON": lambda client, live: client.update(live, metadata=[]),
    "metadata.x = nan: must be a finite": lambda client, live: client.update(live, metadata={"x": math.nan}),
    "metadata.x = {1}: must be JSON": lambda client, live: client.update(live, metadata={"x": {1}}),
    "metadata.x = datetime": lambda client, live: client.update(live, metadata={"x": _SAID}),
    "metadata.x = '\\ud800': must be": lambda client, live: client.update(live, metadata={"x": "\ud800"}),
    "metadata = 1: must be an object": lambda client, live: client.update(live, metadata={1: "x"}),
    "metadata.importance = 2: must be": lambda client, live: client.update(live, metadata={"importance": 2}),
    "related_memory_id = '2': must be": lambda client, live: client.associate(live, "2", "x"),
    "relationship_type = '': must be": lambda client, live: client.associate(live, live, ""),
    "strength = nan: must be": lambda client, live: client.associate(live, live, "x", strength=math.nan),
    "metadata = []: must be a JSON object": lambda client, live: client.associate(
        live, live, "x", metadata=[]
    ),
    "metadata.x = inf: must be a finite": lambda client, live: client.associate(
        live, live, "x", metadata={"x": math.inf}
    ),
    "metadata.x = {2}: must be JSON": lambda client, live: client.associate(
        live, live, "x", metadata={"x": {2}}
    ),
    "relationship_type = 5: must be": lambda client, live: client.dissociate(live, live, 5),
    "relationship_type = ' ': must be": lambda client, live: client.related(live, relationship_type=" "),
    "direction = 'up': must be both": lambda client, live: client.related(live, direction="up"),
    "min_strength = nan: must be": lambda client, live: client.related(live, min_strength=math.nan),
    "depth = 11: must be": lambda client, live: client.related(live, depth=11),
}


@pytest.mark.parametrize("words", REFUSED)
def test_an_argument_is_refused_everywhere_in_the_same_words(client: MemoryClient, words: str) -> None:
    receipt = client.enqueue("a kite", uid="kite", namespace="refused")
    live = int(client.wait(receipt, timeout_s=60).id or 0)
    with pytest.raises(InvalidMemory) as caught:
        REFUSED[words](client, live)
    assert str(caught.value).startswith(words)


def test_what_is_refused_is_not_sent() -> None:
    with MemoryClient.from_url(f"http://127.0.0.1:{free_port()}") as client:
        for words, call in REFUSED.items():
            with pytest.raises(InvalidMemory) as caught:
                call(client, 1)
            assert str(caught.value).startswith(words)


def test_a_number_of_numpy_is_one(client: MemoryClient, namespace: str) -> None:
    one: Any = np.int64(1)
    outcome = client.wait(client.enqueue("a kite", namespace=namespace), timeout_s=60)
    live: Any = np.int64(outcome.id or 0)
    assert client.get(live).content == "a kite"
    assert len(client.context(live, before=one, after=one)) == 1
    assert client.related(live, depth=one) == []
    assert len(client.list_memories(namespace=namespace, limit=one)) == 1
    assert client.list_memories(namespace=namespace, after=live) == []
    seq: Any = np.int64(outcome.seq or 0)
    assert len(client.search("kite", namespace=namespace, limit=one, min_seq=seq)) == 1


def test_types_and_sources_may_be_anything_that_can_be_iterated_over(
    client: MemoryClient, namespace: str
) -> None:
    draft = {"content": "a kite", "namespace": namespace, "source": "chat:1", "memory_type": "task"}
    [outcome] = client.wait(client.enqueue_many([draft]), timeout_s=60)
    types = ["TASK"] * 10
    for of_types, sources in ((iter(types), iter(["chat:1", "x"])), (set(types), {"chat:1"})):
        [hit] = client.search(
            "kite", namespace=namespace, min_seq=outcome.seq, memory_types=of_types, source=sources
        )
        assert hit.memory.id == outcome.id
    assert len(client.list_memories(namespace=namespace, memory_types=iter(types))) == 1


def test_a_write_that_is_not_there_yet_is_waited_for(client: MemoryClient, namespace: str) -> None:
    with pytest.raises(NotYetSearchable):
        client.search("x", namespace=namespace, min_seq=10**9, timeout_s=0.5)


@pytest.mark.parametrize("name", ["pipeline", "http"])
def test_an_erasure_gives_a_receipt(name: str, namespace: str, request: pytest.FixtureRequest) -> None:
    client: PipelineClient | HttpClient = request.getfixturevalue(name)
    outcomes = client.wait(
        client.enqueue_many({"content": f"secret {n}", "namespace": namespace} for n in range(3)), 60
    )
    assert client.erase(ids=[int(outcomes[0].id or 0)], dry_run=False).n_erased == 1
    assert client.erase(namespace=namespace).remaining.rows == 2
    receipt = client.erase(namespace=namespace, dry_run=False)
    assert (receipt.complete, receipt.n_erased, receipt.selector.namespace) == (True, 2, namespace)


def test_without_a_namespace_it_is_the_only_one_of_the_key(stack: Stack, url: str) -> None:
    with MemoryClient.from_url(url, key=new_key(stack, "only one")) as client:
        receipt = client.enqueue("a kite")
        assert receipt.namespace == "only one"
        outcome = client.wait(receipt, timeout_s=60)
        assert [hit.memory.id for hit in client.search("kite", min_seq=outcome.seq)] == [outcome.id]
        others = client.enqueue_many(["one kite", {"content": "two kites"}])
        assert others[1].namespace == "only one"
        client.wait(others, timeout_s=60)
        pages = [client.search("kite", limit=2)]
        pages.append(client.search("kite", limit=2, after=pages[0][-1].cursor))
        assert [len({hit.memory.id for hit in page}) for page in pages] == [2, 1]
        with pytest.raises(NotFound, match="no namespace 'default'"):
            client.enqueue("x", namespace="default")


def test_more_than_one_request_can_take_goes_in_several(http: MemoryClient, namespace: str) -> None:
    drafts = [
        {"content": f"{n} " + "\x01" * 15_000, "uid": str(n), "namespace": namespace} for n in range(100)
    ]  # 9 MB of JSON
    handed = http.enqueue_many([*drafts, *({"content": f"{n}", "namespace": namespace} for n in range(600))])
    assert (len(handed), handed.rejected) == (700, ())
    assert {outcome.state for outcome in http.wait(handed, timeout_s=120)} == {MemoryState.SEARCHABLE}


def test_a_key_that_may_not_is_told_so(stack: Stack, url: str) -> None:
    with MemoryClient.from_url(url, key="mem_wrong") as client, pytest.raises(AccessDenied, match="unknown"):
        client.get(1)
    reader = new_key(stack, "n", scopes="read")
    with MemoryClient.from_url(url, key=reader) as client, pytest.raises(AccessDenied, match="'write'"):
        client.enqueue("x")
    with MemoryClient.from_url(url, key=new_key(stack, "n", requests_a_minute=1)) as client:
        client.list_memories()
        with pytest.raises(TooManyRequests) as caught:
            client.list_memories()
        assert 1 <= caught.value.retry_after_s <= 60


def test_an_api_that_is_away_or_no_api_at_all_is_said_so() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with MemoryClient.from_url(nowhere) as client, pytest.raises(ServerAway, match="no answer of the API"):
        client.enqueue("x")
    for bad in ("127.0.0.1:8080", "ftp://x", "http://", "http://me:secret@x"):
        with pytest.raises(SettingsError, match="must be http"):
            MemoryClient.from_url(bad)


def test_asyncio_awaits_the_same_methods(stack: Stack, url: str) -> None:
    async def use(client: AsyncMemoryClient, namespace: str) -> list[str]:
        async with client:
            receipts = await asyncio.gather(
                *(client.enqueue(f"note {n}", namespace=namespace) for n in range(20))
            )
            outcomes = await client.wait(receipts, timeout_s=60)
            one = await client.wait(receipts[0])
            assert one == outcomes[0]
            with pytest.raises(NotFound):
                await client.get(2**52)
            hits = await client.search("note 7", namespace=namespace, limit=20)
            return sorted(hit.memory.content for hit in hits)

    expected = sorted(f"note {n}" for n in range(20))
    over_http = AsyncMemoryClient.from_url(url, key=new_key(stack))
    assert asyncio.run(use(over_http, "async http")) == expected
    assert asyncio.run(use(AsyncMemoryClient(stack.client()), "async direct")) == expected


def test_the_awaited_client_lacks_nothing() -> None:
    def public(kind: type) -> dict[str, inspect.Signature]:
        names = (name for name in vars(kind) if not name.startswith("_"))
        return {name: inspect.signature(getattr(kind, name)) for name in names}

    plain, awaited = public(MemoryClient), public(AsyncMemoryClient)
    del plain["close"]
    assert plain.keys() <= awaited.keys()
    for name in plain.keys() - {"from_env", "from_url"}:
        assert list(plain[name].parameters) == list(awaited[name].parameters), name
