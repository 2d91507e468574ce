"""What time words mean, counted from a Monday."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from memory.time_words import read_time_words

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("query", "words", "since", "until"),
    [
        ("What did I eat today?", "today", "2026-11-23", "2026-11-24"),
        ("yesterday", "yesterday", "2026-11-22", "2026-11-23"),
        ("and the day before yesterday", "the day before yesterday", "2026-11-21", "2026-11-22"),
        ("last week we met", "last week", "2026-11-16", "2026-11-23"),
        ("This Week", "This Week", "2026-11-23", "2026-11-30"),
        ("last weekend", "last weekend", "2026-11-21", "2026-11-23"),
        ("last month", "last month", "2026-10-01", "2026-11-01"),
        ("during last year", "during last year", "2025-01-01", "2026-01-01"),
        ("on Monday", "on Monday", "2026-11-23", "2026-11-24"),
        ("last monday", "last monday", "2026-11-16", "2026-11-17"),
        ("on Sunday", "on Sunday", "2026-11-22", "2026-11-23"),
        ("two days ago", "two days ago", "2026-11-21", "2026-11-22"),
        ("a couple of weeks ago", "a couple of weeks ago", "2026-11-09", "2026-11-16"),
        ("3 months ago", "3 months ago", "2026-08-01", "2026-09-01"),
        ("in the last 3 days", "in the last 3 days", "2026-11-20", "2026-11-24"),
        ("on 2023-05-07", "on 2023-05-07", "2023-05-07", "2023-05-08"),
        ("on 7 May 2023?", "on 7 May 2023", "2023-05-07", "2023-05-08"),
        ("May 7th, 2023", "May 7th, 2023", "2023-05-07", "2023-05-08"),
        ("on the 7th of December", "on the 7th of December", "2025-12-07", "2025-12-08"),
        ("in May 2023", "in May 2023", "2023-05-01", "2023-06-01"),
        ("in december", "in december", "2025-12-01", "2026-01-01"),
        ("in 2023", "in 2023", "2023-01-01", "2024-01-01"),
        ("since March", "since March", "2026-03-01", None),
        ("after 2022", "after 2022", "2023-01-01", None),
        ("before May 2023", "before May 2023", None, "2023-05-01"),
        ("until May 2023", "until May 2023", None, "2023-06-01"),
        ("between March and May 2024", "between March and May 2024", "2024-03-01", "2024-06-01"),
        ("from 2021 to 2023", "from 2021 to 2023", "2021-01-01", "2024-01-01"),
    ],
)
def test_time_words_become_bounds(query: str, words: str, since: str | None, until: str | None) -> None:
    told = read_time_words(query, now=NOW)
    assert told is not None
    assert (told.words, _day(told.since), _day(told.until)) == (words, since, until)


@pytest.mark.parametrize(
    "query",
    [
        "before I moved",
        "I may go",
        "call 2023 people",
        "Monday is a day",
        "31 February 2023",
        "0 May 2023",
        "2023-13-01",
        "between 2023 and 2021",
        "the weekly report",
        "",
        "今天",
    ],
)
def test_what_is_no_time_or_may_mean_something_else_bounds_nothing(query: str) -> None:
    told = read_time_words(query, now=NOW)
    assert told is None


def test_days_begin_where_the_clock_is() -> None:
    tokyo = NOW.astimezone(ZoneInfo("Asia/Tokyo"))  # where it is Tuesday already
    told = read_time_words("today", now=tokyo)
    assert told is not None
    assert told.since == datetime(2026, 11, 23, 15, tzinfo=UTC)


def _day(instant: datetime | None) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%d}"
