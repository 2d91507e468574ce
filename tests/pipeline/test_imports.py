"""Every format through a running stack: found by search as it was said and when, and there once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api_stub.commands.ingest import run_ingest
from api_stub.home import running_stack
from api_stub.pipeline_client import PipelineClient
from ingest.chat_logs.messages import Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.inputs import ImportOptions, opened
from memory.messages import RawMemory
from memory.models import MemoryState
from memory.settings import Settings, read_settings
from tests.pipeline.stack import Stack, running_up

GOLDEN = Path(__file__).parents[1] / "unit/chat_logs/golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/expected.jsonl"))
_MOST_SEARCHES = 12  # of one log


@pytest.fixture(scope="module")
def stack(shared_home: Path) -> Iterator[Stack]:
    with running_up(shared_home) as running:
        yield running


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    found = running_stack(stack.home)
    assert found is not None
    return read_settings(home=stack.home, redis_url=found.redis_url, db_url=found.db_url)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[PipelineClient]:
    with PipelineClient(settings) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_a_log_is_imported_found_with_its_dates_and_nothing_is_new_the_second_time(
    client: PipelineClient, settings: Settings, case: Path, tmp_path: Path
) -> None:
    [path] = case.glob("input*")
    namespace = f"{case.parent.name} {case.name}"
    options = ImportOptions(
        imported_at=datetime(2026, 1, 1, tzinfo=UTC),
        read=ReadOptions(namespace=namespace),
        include=("hidden", "system", "tool"),
    )
    with opened(str(path), options) as (inputs, _):
        found = [one for source in inputs for one in source.memories()]
    memories = [one for one in found if isinstance(one, RawMemory)]
    assert memories

    def imported() -> dict[str, Any]:
        rejects = tmp_path / "rejected.jsonl"
        return run_ingest(client, settings, [str(path)], options=options, errors=rejects, quiet=True)

    result = imported()
    assert (result["new"], result["searchable"], result["known"]) == (len(memories), len(memories), 0)
    assert result["rejected"] == sum(isinstance(one, Flaw) for one in found)
    assert {file["format"] for file in result["files"]} == {case.parent.name}
    oldest = min(file["oldest"] for file in result["files"] if file["oldest"])
    assert oldest == min(memory.created_at for memory in memories).isoformat()
    for memory in memories[:_MOST_SEARCHES]:
        hits = client.search(memory.content, namespace=memory.namespace, limit=len(memories), mode="vector")
        [same] = [hit for hit in hits if hit.memory.uid == memory.uid]
        assert same.score > 0.99
        assert asdict(same.memory) | {"last_access_at": None} == asdict(memory.stored_as(same.memory.id))
    again = imported()
    assert (again["new"], again["known"], again["accepted"]) == (0, len(memories), 0)


def test_every_part_of_a_long_message_is_found_and_the_message_comes_once(client: PipelineClient) -> None:
    filler = "Nothing of interest was said about the weather that day, and the guests went home early. "
    parts = [
        "The key of the lighthouse lies under the third stone. ",
        "Her sister plays the cello in an orchestra in Vienna. ",
        "For the soup one needs leek, saffron and two kinds of fish. ",
    ]
    content = "".join(filler * 30 + part for part in parts) + filler * 30
    receipts = client.enqueue_many(
        [{"content": content, "namespace": "long"}]
        + [{"content": f"{filler} It was day {n}.", "namespace": "long"} for n in range(40)]
    )
    assert {outcome.state for outcome in client.wait(receipts, timeout_s=60)} == {MemoryState.SEARCHABLE}
    for query in ("Where is the lighthouse's key?", "Who plays an instrument?", "What goes into the soup?"):
        hits = client.search(query, namespace="long", limit=41)
        assert hits[0].memory.content == content
        assert len({hit.memory.id for hit in hits}) == len(hits) == 41
    client.delete(hits[0].memory.id)
    assert all(hit.memory.content != content for hit in client.search(parts[1], namespace="long", limit=41))
