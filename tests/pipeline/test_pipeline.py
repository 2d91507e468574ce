"""The path of a memory through real processes: accepted, stored, searchable, dead, deleted."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_stub.pipeline_client import PipelineClient
from memory.errors import InvalidMemory, NotFound, NotYetSearchable, SearchUnavailable, ServerAway
from memory.memory_manager import MemoryManager
from memory.models import MemoryState, MemoryType, Receipt, SearchMode
from tests.pipeline.stack import Stack, running_up
from tests.waiting import wait_until

SETTINGS = {
    "MEMORY_MAINTENANCE_TICK_S": "0.5",
    "MEMORY_CLEANUP_EVERY_S": "2",
    "MEMORY_SNAPSHOT_EVERY_S": "2",
}


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="memory-test-") as name:
        home = Path(name)
        home.chmod(0o711)
        database = {"MEMORY_DB_URL": f"sqlite:///{home}/memories.db"} if request.param == "sqlite" else {}
        with running_up(home, **SETTINGS, **database) as running:
            yield running


def test_a_memory_is_accepted_then_stored_and_searchable_and_found_by_meaning(stack: Stack) -> None:
    with stack.client() as client:
        receipt = client.enqueue("Inês is allergic to hazelnuts", memory_type="semantic", namespace="one")
        others = client.enqueue_many(
            [{"content": f"The weather report number {i}", "namespace": "one"} for i in range(30)]
        )
        outcome = client.wait(receipt, timeout_s=30)
        assert outcome.state is MemoryState.SEARCHABLE
        client.wait(others, timeout_s=30)
        hits = client.search("Which food must she avoid?", namespace="one", limit=3, min_seq=outcome.seq)
        assert hits[0].memory.content == "Inês is allergic to hazelnuts"
        assert hits[0].memory.id == outcome.id
        assert hits[0].memory.memory_type is MemoryType.SEMANTIC
        assert hits[0].score > hits[1].score


def test_every_memory_of_a_bulk_becomes_searchable_and_a_bad_one_is_named(stack: Stack) -> None:
    drafts = [{"content": f"Fact number {i} about subject {i % 7}", "namespace": "bulk"} for i in range(600)]
    drafts[100] = {"content": "  "}
    drafts[200] = {"content": "x", "memory_type": "gossip"}
    drafts[300] = {"content": "x", "metadata": {"importance": float("nan")}}
    with stack.client() as client:
        enqueued = client.enqueue_many(drafts)
        assert len(enqueued) == 597
        assert [r.position for r in enqueued.rejected] == [100, 200, 300]
        assert "memory_type = 'gossip': must be one of episodic" in enqueued.rejected[1].reason
        outcomes = client.wait(enqueued, timeout_s=60)
        assert {o.state for o in outcomes} == {MemoryState.SEARCHABLE}
        assert len(client.search("fact", namespace="bulk", limit=597)) == 597


def test_a_deleted_memory_is_gone_at_once_and_stays_gone_when_it_comes_again(stack: Stack) -> None:
    with stack.client() as client:
        receipt = client.enqueue("The spare key is under the blue pot", uid="key", namespace="del")
        outcome = client.wait(receipt, timeout_s=30)
        assert outcome.id is not None
        seq = client.delete(outcome.id)
        assert client.search("spare key", namespace="del") == []
        assert client.search("spare key", namespace="del", min_seq=seq) == []
        with pytest.raises(NotFound):
            client.get(outcome.id)
        again = client.enqueue("The spare key is under the blue pot", uid="key", namespace="del")
        marker = client.enqueue("marker", namespace="del")
        assert client.wait(marker, timeout_s=30).state is MemoryState.SEARCHABLE
        assert client.wait(again, timeout_s=30).state is MemoryState.DELETED
        assert [h.memory.content for h in client.search("spare key", namespace="del")] == ["marker"]


def test_a_reworded_memory_is_found_by_its_new_content_and_not_by_the_old_one(stack: Stack) -> None:
    with stack.client() as client:
        receipt = client.enqueue("The dentist is on Monday", uid="dentist", namespace="reworded")
        other = client.enqueue("The bread is in the oven", namespace="reworded")
        client.wait([receipt, other], timeout_s=30)
        memory = client.get_by_uid("dentist", namespace="reworded")
        assert client.update(memory.id, content="The plumber comes on Friday") == receipt
        outcome = client.wait(receipt, timeout_s=30)
        assert (outcome.state, outcome.id) == (MemoryState.SEARCHABLE, memory.id)
        hits = client.search("plumber on Friday", namespace="reworded", mode="words", min_seq=outcome.seq)
        assert [hit.memory.content for hit in hits] == ["The plumber comes on Friday"]
        assert client.search("dentist", namespace="reworded", mode="words") == []
        assert client.verify()["equal"]


def test_the_library_finds_the_same_in_the_same_memories(stack: Stack, tmp_path: Path) -> None:
    drafts: list[dict[str, Any]] = [
        {
            "content": f"{content} It was number {n}.",
            "namespace": "same",
            "source": f"chat:{n % 3}",
            "metadata": {"author": ("Ines", "Rui")[n % 2], "position": n},
            "created_at": f"2025-03-01T10:00:{n:02}+00:00",
            "uid": f"same-{n}",
        }
        for n, content in enumerate(
            ["We moved to Braga in May.", "Which bread did you buy?", "The puppy is called Bolota."] * 15
        )
    ]
    queries = ["Where does Ines live since May?", "name of the dog", "number 17", "bread?"]
    with stack.client() as client, MemoryManager(f"sqlite:///{tmp_path}/memories.db") as manager:
        receipts = client.enqueue_many(drafts)
        client.wait(receipts, timeout_s=60)
        manager.add_memories(drafts)
        for query, mode in itertools.product(queries, SearchMode):
            there = client.search(query, namespace="same", mode=mode, limit=45, explain=True)
            here = manager.search_memories(query, namespace="same", mode=mode, limit=45, explain=True)
            assert len(here) == len(there)
            found = {result["memory"].uid: result for result in here}
            for hit in there:
                same = found[hit.memory.uid]
                assert same["score"] == pytest.approx(hit.score, abs=1e-5)
                assert {name: term.value for name, term in same["terms"].items()} == pytest.approx(
                    {name: term.value for name, term in hit.terms.items()}, abs=1e-5
                )
            # Embedded in other batches, a vector differs in its last digits.
            assert [r["score"] for r in here] == pytest.approx([hit.score for hit in there], abs=1e-5)


def test_stored_memories_can_be_listed_page_by_page_and_by_conditions(stack: Stack) -> None:
    drafts = [{"content": f"note {n}", "namespace": "list", "metadata": {"n": n}} for n in range(7)]
    with stack.client() as client:
        client.wait(client.enqueue_many(drafts), timeout_s=30)
        first = client.list_memories(namespace="list", limit=4)
        rest = client.list_memories(namespace="list", limit=4, after=first[-1].id)
        assert [memory.content for memory in first + rest] == [f"note {n}" for n in reversed(range(7))]
        [one] = client.list_memories(namespace="list", where={"metadata.n": 3})
        shown = json.loads(
            stack.memory("list", "-n", "list", "--where", '{"metadata.n": 3}', "--json").stdout
        )
        assert shown == {"namespace": "list", "memories": [one.as_json()]}
        assert client.list_memories(namespace="list", memory_types="task") == []
    refused = stack.memory("list", "--where", "[1]", expect=2)
    assert "where = [1]: must be a JSON object" in refused.stderr


def test_memories_can_be_linked_and_a_search_brings_what_is_linked(stack: Stack) -> None:
    with stack.client() as client:
        receipts = client.enqueue_many(
            [{"content": content, "namespace": "links"} for content in ("the vet", "the bill", "the sea")]
        )
        vet, bill, sea = (outcome.id for outcome in client.wait(receipts, timeout_s=30))
        assert vet
        assert bill
        assert sea
        made = client.associate(vet, bill, "led_to", strength=0.5)
        assert (made.memory_id, made.related_memory_id, made.strength) == (vet, bill, 0.5)
        stack.memory("associate", str(bill), str(sea), "reminds_of", "--strength", "0.5")
        assert [r.memory.id for r in client.related(vet)] == [bill]
        found = json.loads(stack.memory("related", str(vet), "--depth", "2", "--json").stdout)["related"]
        assert [(one["id"], one["relation"]["strength"]) for one in found] == [(bill, 0.5), (sea, 0.25)]
        hits = client.search("the vet", namespace="links", limit=1, expand=2)
        assert [hit.memory.id for hit in hits] == [vet, bill]
        assert client.dissociate(vet, bill) == 1
        assert client.related(vet) == []
    assert "linked to" in stack.memory("associate", str(vet), str(sea), "near").stdout
    stack.memory("associate", str(vet), "999999", "near", expect=4)


def test_a_search_for_a_write_of_the_future_says_not_yet_instead_of_nothing(stack: Stack) -> None:
    with stack.client() as client, pytest.raises(NotYetSearchable):
        client.search("anything", min_seq=10**9, timeout_s=1)


def test_f19_a_search_that_nobody_answers_says_so_in_time(stack: Stack) -> None:
    indexer = stack.child("indexer")
    indexer.send_signal(signal.SIGSTOP)
    try:
        with stack.client() as client, pytest.raises(SearchUnavailable, match="no answer within 1 s"):
            client.search("anything", timeout_s=1)
    finally:
        indexer.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"query": " "}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 1001}, "limit"),
        ({"query": "x", "memory_types": ["gossip"]}, "memory_type"),
        ({"query": "x", "memory_types": []}, "memory_types"),
        ({"query": "x", "min_score": 2.0}, "min_score"),
        ({"query": "x", "namespace": ""}, "namespace"),
    ],
)
def test_a_bad_search_argument_is_named(stack: Stack, arguments: dict[str, object], field: str) -> None:
    with stack.client() as client, pytest.raises(InvalidMemory, match=f"^{field} = "):
        client.search(**arguments)  # type: ignore[arg-type]


def test_f14_what_can_never_be_stored_becomes_a_dead_letter_with_its_reason_and_can_be_retried(
    stack: Stack,
) -> None:
    ingest = stack.redis("ingest")
    bodies = [
        b"\x80\x04 not json",
        b'{"v":1,"uid":"nul","namespace":"dlq","content":"a\\u0000b"}',
        b'{"v":1,"uid":"surrogate","namespace":"dlq","content":"a\\ud800b"}',
        b'{"v":1,"uid":"nan","namespace":"dlq","content":"x","metadata":{"importance":NaN}}',
        b'{"v":99,"uid":"future","namespace":"dlq","content":"x"}',
        b'{"v":1,"uid":"deep","namespace":"dlq","content":"x","metadata":'
        + b'{"a":' * 5000
        + b"1"
        + b"}" * 5001,
        json.dumps({"v": 1, "uid": "big", "namespace": "dlq", "content": "x" * 2_000_000}).encode(),
    ]
    for body in bodies:
        ingest.xadd("mem:in:fast", {"m": body})
    ingest.xadd("mem:in:bulk", {"something": "else"})
    with stack.client() as client:
        good = client.enqueue("still alive", namespace="dlq")
        assert client.wait(good, timeout_s=30).state is MemoryState.SEARCHABLE
        wait_until(lambda: len(client.dead_letters()) == 8, timeout_s=20, why="all eight are dead letters")
        dead = client.wait(Receipt(uid="nul", namespace="dlq"), timeout_s=5)
        assert dead.state is MemoryState.DEAD
        assert "NUL" in str(dead.reason)
        letters = stack.json("dlq", "list")
        assert [x["uid"] for x in letters[1:4]] == ["nul", "surrogate", "nan"]
        assert stack.json("dlq", "retry", "--all") == {"retried": 8}
        wait_until(lambda: len(client.dead_letters()) == 8, timeout_s=20, why="they are dead again")
        first = stack.json("dlq", "list")[0]["id"]
        stack.memory("dlq", "purge", str(first))
        stack.memory("dlq", "purge", str(first), expect=4)
        stack.memory("dlq", "purge", expect=2)
        assert stack.json("dlq", "purge", "--all") == {"purged": 7}


@pytest.mark.parametrize("queue", ["embed", "maintenance", "search", "index"])
def test_f21_garbage_on_a_queue_is_refused_and_the_worker_lives(stack: Stack, queue: str) -> None:
    broker = stack.redis("broker")
    process = stack.child("embed-1" if queue in {"embed", "maintenance"} else "indexer")
    envelope = {
        "body": "gASVBQAAAAAAAABLAUsChpQu",
        "content-encoding": "binary",
        "content-type": "application/x-python-serialize",
        "headers": {"task": "embed.drain", "id": "evil", "lang": "py", "argsrepr": "", "kwargsrepr": ""},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": "evil-1",
            "body_encoding": "base64",
            "delivery_mode": 2,
        },
    }
    unknown = {
        **envelope,
        "body": "W1tdLCB7fSwge31d",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**envelope["headers"], "task": "os.system", "id": "unknown"},  # type: ignore[dict-item]
    }
    broker.lpush(
        queue, json.dumps(envelope), json.dumps(unknown), b"\x80 garbage", b"[]", pickle.dumps({"a": 1})
    )
    with stack.client() as client:
        after = client.enqueue(f"after garbage on {queue}", namespace="garbage")
        assert client.wait(after, timeout_s=30).state is MemoryState.SEARCHABLE
        assert client.search("garbage", namespace="garbage", timeout_s=30)
    assert broker.llen(queue) == 0
    assert process.is_running()
    assert process.pid == stack.child("embed-1" if queue in {"embed", "maintenance"} else "indexer").pid


def test_beat_forgets_what_is_old_and_unimportant(stack: Stack) -> None:
    with stack.client() as client:
        old = client.enqueue(
            "It rained", metadata={"importance": 0.05}, created_at="2020-01-01", namespace="cleanup"
        )
        kept = client.enqueue(
            "We married", metadata={"importance": 0.9}, created_at="2020-01-01", namespace="cleanup"
        )
        wait_until(
            lambda: client.wait(old, timeout_s=0).state is MemoryState.DELETED,
            timeout_s=30,
            why="it is forgotten",
        )
        assert client.wait(kept, timeout_s=30).state is MemoryState.SEARCHABLE


def test_files_are_ingested_and_bad_lines_are_kept_with_line_and_reason(stack: Stack, tmp_path: Path) -> None:
    lines = [json.dumps({"content": f"Line {i} of the file"}) for i in range(50)]
    lines[10] = '{"content": "unfinished'
    lines[20] = json.dumps({"content": "x", "created_at": "yesterday"})
    lines[30] = json.dumps({"content": "x", "mood": "good"})
    file, errors = tmp_path / "chat.jsonl", tmp_path / "bad.jsonl"
    file.write_text("\n".join(lines))
    arguments = ("ingest", str(file), "-", "-n", "files", "--errors", str(errors))
    stdin = json.dumps({"content": "from standard input"})
    result = stack.json(*arguments, stdin=stdin, expect=1)
    expected = {
        "read": 51,
        "rejected": 3,
        "accepted": 48,
        "stored": 48,
        "searchable": 48,
        "dead": 0,
        "unsettled": 0,
    }
    assert {k: result[k] for k in expected} == expected
    rejected = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [(r["file"], r["at"]) for r in rejected] == [(str(file), f"line {n}") for n in (11, 21, 31)]
    assert "created_at = 'yesterday': must be an ISO 8601" in rejected[1]["reason"]
    stored = stack.json("status")["stored"]
    stack.json(*arguments, stdin=stdin, expect=1)
    assert stack.json("status")["stored"] == stored, "the same file again adds nothing"


def test_a_chat_export_is_found_by_search_with_its_date_and_adds_nothing_when_imported_again(
    stack: Stack, tmp_path: Path
) -> None:
    export = Path(__file__).parents[1] / "unit/chat_logs/golden/chatgpt/tree"
    (tmp_path / "notes.txt").write_text("no chat log")
    (tmp_path / "conversations.json").write_bytes((export / "input.json").read_bytes())
    result = stack.json("ingest", str(tmp_path), "-n", "chats", expect=1)
    [file] = result["files"]
    assert (file["format"], file["new"], file["oldest"][:10], file["newest"][:10]) == (
        "chatgpt",
        6,
        "1970-01-01",
        "2023-11-14",
    )
    assert "notes.txt: this is of no known format" in result["first_rejected"][0]
    assert "conversation 5: this conversation has no id" in result["first_rejected"][1]
    searched = ("search", "oolong from an island", "-n", "chats", "-k", "1", "--context", "1")
    [hit] = stack.json(*searched)["results"]
    assert [memory["content"] for memory in hit["before"]] == ["Which tea is this?"]
    assert "Which tea is this?" in stack.memory(*searched).stdout
    assert hit["content"] == "It is Oolong, from Taiwan."
    assert hit["created_at"] == "2023-11-14T22:13:25+00:00"
    assert hit["source"] == "chatgpt:c-1"
    assert hit["metadata"]["title"] == "Tea"
    around = stack.json("context", str(hit["id"]))["context"]
    assert [memory["content"] for memory in around] == ["Which tea is this?", "It is Oolong, from Taiwan."]
    assert "→" in stack.memory("context", str(hit["id"])).stdout
    again = stack.json("ingest", str(tmp_path), "-n", "chats", expect=1)
    assert (again["new"], again["known"], again["accepted"]) == (0, 6, 0)


def test_the_command_line_adds_finds_shows_and_deletes(stack: Stack) -> None:
    added = stack.json(
        "add", "Duarte was born in August", "--type", "semantic", "-n", "cli", "--uid", "duarte"
    )
    assert added["state"] == "searchable"
    [hit] = stack.json("search", "when was the baby born", "-n", "cli", "--min-seq", str(added["seq"]))[
        "results"
    ]
    assert (hit["content"], hit["id"]) == ("Duarte was born in August", added["id"])
    assert stack.json("get", "duarte", "--uid", "-n", "cli")["id"] == added["id"]
    assert "Duarte" in stack.memory("search", "baby", "-n", "cli").stdout
    updated = stack.json(
        "update", "duarte", "--uid", "-n", "cli", "--content", "Duarte plays the cello", "--importance", "0.9"
    )
    assert (updated["state"], updated["id"]) == ("searchable", added["id"])
    [hit] = stack.json("search", "which instrument?", "-n", "cli")["results"]
    assert (hit["content"], hit["importance"], hit["version"]) == ("Duarte plays the cello", 0.9, 2)
    stack.memory("update", str(added["id"]), "--type", "gossip", expect=2)
    assert stack.json("delete", str(added["id"]))["state"] == "deleted"
    stack.memory("update", str(added["id"]), "--content", "x", expect=4)
    assert stack.json("search", "baby", "-n", "cli")["results"] == []
    stack.memory("get", str(added["id"]), expect=4)
    stack.memory("delete", str(added["id"]), expect=4)
    stack.memory("get", "not-a-number", expect=2)
    assert "must be one of" in stack.memory("add", "x", "--type", "gossip", expect=2).stderr


def test_index_and_database_are_equal_and_the_counts_agree(stack: Stack) -> None:
    with stack.client() as client:
        client.wait(client.enqueue("the last one", namespace="end"), timeout_s=30)
        comparison = client.verify()
        assert comparison["equal"]
        assert comparison["n_memories"] > 0
        status = client.status()
        assert status.accepted == status.stored == status.searchable == comparison["n_memories"]
        assert status.dead == status.waiting == 0
        wait_until(lambda: client.status().snapshot_seq > 0, timeout_s=20, why="a snapshot was saved")
    assert "ok" in stack.memory("doctor").stdout


@pytest.mark.faults
@pytest.mark.parametrize("name", ["embed-1", "indexer", "beat", "redis"])
def test_a_killed_child_is_back_within_ten_seconds_and_nothing_is_lost(stack: Stack, name: str) -> None:
    _kill_and_lose_nothing(stack, name)


@pytest.mark.faults
@pytest.mark.parametrize("stack", ["postgres"], indirect=True)
def test_f06_a_killed_postgres_is_back_within_ten_seconds_and_nothing_is_lost(stack: Stack) -> None:
    _kill_and_lose_nothing(stack, "postgres")


@pytest.mark.faults
def test_f03_redis_killed_again_and_again_under_load_leaves_nothing_stuck(stack: Stack) -> None:
    with stack.client() as client:
        receipts: list[Receipt] = []
        for n in range(3):
            drafts = [{"content": f"Round {n}, memory {i}", "namespace": "rounds"} for i in range(400)]
            receipts += client.enqueue_many(drafts)
            stack.child("redis").kill()
            wait_until(lambda: _answers(client), timeout_s=20, why="Redis answers again")
        outcomes = client.wait(receipts, timeout_s=90)
        assert {o.state for o in outcomes} == {MemoryState.SEARCHABLE}
        wait_until(lambda: _answers_searches(client), timeout_s=30, why="searches are answered")


def _kill_and_lose_nothing(stack: Stack, name: str) -> None:
    with stack.client() as client:
        drafts = [{"content": f"{name} will die, says memory {i}", "namespace": name} for i in range(300)]
        receipts = client.enqueue_many(drafts)
        victim = stack.child(name)
        victim.kill()
        wait_until(lambda: not victim.is_running(), timeout_s=5, why=f"{name} is dead")
        assert stack.child(name).pid != victim.pid

        def all_searchable() -> bool:
            with contextlib.suppress(Exception):
                return all(o.state is MemoryState.SEARCHABLE for o in client.outcomes(list(receipts)))
            return False

        wait_until(all_searchable, timeout_s=40, why="all accepted memories are searchable")
        wait_until(lambda: _finds(stack, name), timeout_s=20, why="searches are answered")
        assert client.verify()["equal"]


def _answers(client: PipelineClient) -> bool:
    with contextlib.suppress(ServerAway):
        return bool(client.status())
    return False


def _answers_searches(client: PipelineClient) -> bool:
    with contextlib.suppress(ServerAway, SearchUnavailable):
        return len(client.search("memory", namespace="rounds", limit=1000, timeout_s=3)) == 1000
    return False


def _finds(stack: Stack, namespace: str) -> bool:
    with contextlib.suppress(ServerAway, SearchUnavailable), stack.client() as client:
        return len(client.search("who will die?", namespace=namespace, limit=300, timeout_s=3)) == 300
    return False
