"""A process's sign of progress: its age is its health."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from memory.heartbeat import Heartbeat


def set_age(home: Path, age_s: float) -> None:
    at = time.time() - age_s
    os.utime(home / "heartbeats" / "embed", (at, at))


def test_a_process_that_never_turned_has_no_age_and_is_not_fresh(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "new home", "embed")
    assert heartbeat.age_s() is None
    assert not heartbeat.is_fresh()


def test_a_touch_makes_it_fresh_however_old_it_was(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, "embed")
    heartbeat.touch()
    set_age(tmp_path, 10_000)
    assert not heartbeat.is_fresh()
    heartbeat.touch()
    assert heartbeat.is_fresh()


@pytest.mark.parametrize(("age_s", "fresh"), [(0, True), (55, True), (65, False)])
def test_it_is_stale_after_a_minute(tmp_path: Path, age_s: float, fresh: bool) -> None:
    heartbeat = Heartbeat(tmp_path, "embed")
    heartbeat.touch()
    set_age(tmp_path, age_s)
    assert heartbeat.age_s() == pytest.approx(age_s, abs=2)
    assert heartbeat.is_fresh() is fresh


def test_a_clock_that_was_set_back_makes_no_negative_age(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, "embed")
    heartbeat.touch()
    set_age(tmp_path, -3600)
    assert heartbeat.age_s() == 0


def test_a_forgotten_sign_counts_as_never_given(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, "embed")
    heartbeat.forget()
    heartbeat.touch()
    heartbeat.forget()
    assert heartbeat.age_s() is None


def test_the_sign_is_seen_by_another_process_and_not_mistaken_for_anothers(tmp_path: Path) -> None:
    Heartbeat(tmp_path, "embed").touch()
    assert Heartbeat(tmp_path, "embed").is_fresh()
    assert not Heartbeat(tmp_path, "indexer").is_fresh()
