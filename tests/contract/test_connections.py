"""Connections to Postgres that are lost: what their user sees of it."""

from __future__ import annotations

import psycopg
import pytest

import memory.database
from memory.database import Database
from memory.errors import ServerAway
from memory.store.event_log import EventLog
from tests.servers import Postgres


def _cut_off_everybody(url: str) -> None:
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(others + "AND pid <> pg_backend_pid()")


def test_one_that_nobody_used_for_a_while_is_replaced_unseen(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    database = Database(url)
    assert EventLog(database).head() == 0
    _cut_off_everybody(url)
    monkeypatch.setattr(memory.database, "_IDLE_S", 0)
    assert EventLog(database).head() == 0
    database.close()


def test_one_that_was_used_just_now_fails_once(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_database()
    database = Database(url)
    monkeypatch.setattr(memory.database, "_IDLE_S", 60)
    assert EventLog(database).head() == 0
    _cut_off_everybody(url)
    with pytest.raises(ServerAway):
        EventLog(database).head()
    assert EventLog(database).head() == 0
    database.close()
