"""A push says that it was accepted only where it is as safe as its durability promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from api_stub.stack.servers import RedisServer
from memory.errors import SettingsError
from memory.stream import IngestStream
from tests.servers import running_server


def test_a_push_that_is_to_be_on_the_disk_is_refused_where_redis_flushes_later(redis_url: str) -> None:
    stream = IngestStream(redis_url, fsync=True)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with pytest.raises(
        SettingsError, match="must run with appendonly yes and appendfsync always, not yes and"
    ):
        stream.push([b"x"], lane="fast")
    assert stream.waiting() == {"fast": 0, "bulk": 0}
    with pytest.raises(SettingsError, match="appendfsync always"):
        stream.check_server()


def test_a_push_that_is_to_be_on_the_disk_is_accepted_where_redis_flushes_first(home: Path) -> None:
    server = RedisServer(home / "redis", appendfsync="always")
    server.prepare()
    with running_server(server.child(home / "redis.log")):
        stream = IngestStream(server.url, fsync=True)
        stream.push([b"x"], lane="fast")
        assert stream.waiting() == {"fast": 1, "bulk": 0}
        assert stream.check_server() == []
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendonly", "no")
        with pytest.raises(SettingsError, match="not no and always"):
            stream.push([b"y"], lane="fast")
