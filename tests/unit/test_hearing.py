"""The hearing watch, look by look at a real Redis: an idle stack is no outage, an outage is one event."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from structlog.testing import capture_logs

from memory import hearing
from memory.broker import QueueName, TaskName, make_celery
from memory.hearing import HearingWatch
from memory.settings import read_settings
from tests.servers import running_redis

QUEUES = (QueueName.SEARCH.value, QueueName.INDEX.value)


@pytest.fixture
def app(home: Path) -> Iterator[Celery]:
    with running_redis(home) as url, make_celery(read_settings(redis_url=url)) as app:
        yield app


def test_queues_that_were_never_used_are_empty_and_nothing_is_said(app: Celery) -> None:
    heard: list[int] = []
    watch = _watch(app, heard=heard)
    with capture_logs() as said:
        watch.look()
        watch.look()
    assert said == []
    assert len(heard) == 2


def test_a_message_in_the_last_queue_is_seen_though_the_first_one_is_empty(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = _watch(app)
    app.send_task(TaskName.APPLY.value, queue=QueueName.INDEX.value, ignore_result=True)
    monkeypatch.setattr(hearing, "DEAF_AFTER_S", 0.0)
    monkeypatch.setattr(os, "_exit", _leave)
    with capture_logs() as said, pytest.raises(SystemExit) as left:
        watch.look()
    assert left.value.code == os.EX_TEMPFAIL
    assert [event["event"] for event in said] == ["worker_deaf"]


def test_each_outage_is_said_once_when_it_begins(home: Path) -> None:
    with running_redis(home) as url:
        watch = _watch(make_celery(read_settings(redis_url=url)))
    with capture_logs() as said:
        watch.look()
        watch.look()
    assert [event["event"] for event in said] == ["broker_not_reached"]
    with running_redis(home) as again, capture_logs() as said:
        assert again == url
        watch.look()
    assert said == []
    with capture_logs() as said:
        watch.look()
    assert [event["event"] for event in said] == ["broker_not_reached"]


def _watch(app: Celery, *, heard: list[int] | None = None) -> HearingWatch:
    noted = heard if heard is not None else []
    return HearingWatch(app, queues=QUEUES, concurrency=4, on_hearing=lambda: noted.append(1))


def _leave(code: int) -> None:
    raise SystemExit(code)
