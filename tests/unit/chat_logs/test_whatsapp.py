"""WhatsApp: the order of dates is found in the whole file, or asked for; names, zones and flaws."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ingest.chat_logs.formats import detect
from ingest.chat_logs.messages import ChatMessage, Flaw
from ingest.chat_logs.reader import ReadOptions
from ingest.chat_logs.trees import open_tree


def read(path: Path, options: ReadOptions | None = None) -> list[ChatMessage | Flaw]:
    with open_tree(path) as tree:
        [found] = detect(tree).found
        assert found.reader.name == "whatsapp"
        return list(found.reader.read(tree, found.members, options or ReadOptions()))


def chat(folder: Path, *lines: str, name: str = "chat.txt") -> Path:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def days(found: list[ChatMessage | Flaw]) -> list[str]:
    assert all(isinstance(message, ChatMessage) for message in found), found
    return [f"{message.created_at:%m-%d}" for message in found if isinstance(message, ChatMessage)]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["13/01/20", "02/03/20"], ["01-13", "03-02"]),  # no month has the number 13
        (["01/13/20", "02/03/20"], ["01-13", "02-03"]),
        (["2/1/20", "1/2/20"], ["01-02", "02-01"]),  # a chat does not go back in time
        (["1/2/20", "2/1/20"], ["01-02", "02-01"]),
        (["3/3/20", "4/4/20"], ["03-03", "04-04"]),  # either way
        (["2020-01-02", "2020-02-01"], ["01-02", "02-01"]),
        (["2020.01.02", "2020.02.01"], ["01-02", "02-01"]),
        (["1.2.2020", "13.2.2020"], ["02-01", "02-13"]),
    ],
)
def test_the_order_of_dates_is_found_in_the_whole_file(
    tmp_path: Path, dates: list[str], expected: list[str]
) -> None:
    assert days(read(chat(tmp_path, *(f"{date}, 10:00 - Ann: hi" for date in dates)))) == expected


def test_dates_that_may_be_read_in_two_ways_are_asked_for_and_nothing_is_guessed(tmp_path: Path) -> None:
    path = chat(tmp_path, "1/2/20, 10:00 - Ann: a", "1/3/20, 10:00 - Ann: b")
    [flaw] = read(path)
    assert isinstance(flaw, Flaw)
    assert "--date-order dmy or --date-order mdy" in flaw.reason
    assert days(read(path, ReadOptions(date_order="dmy"))) == ["02-01", "03-01"]
    assert days(read(path, ReadOptions(date_order="mdy"))) == ["01-02", "01-03"]


def test_an_order_that_a_line_contradicts_is_refused_with_that_line(tmp_path: Path) -> None:
    path = chat(tmp_path, "1/2/20, 10:00 - Ann: a", "1/13/20, 10:00 - Ann: b")
    [flaw] = read(path, ReadOptions(date_order="dmy"))
    assert isinstance(flaw, Flaw)
    assert flaw.place.at == "line 2"
    assert "1/13/20 is no date in the order dmy" in flaw.reason


def test_dates_of_no_one_order_are_refused(tmp_path: Path) -> None:
    [flaw] = read(chat(tmp_path, "1/13/20, 10:00 - Ann: a", "13/1/20, 10:00 - Ann: b"))
    assert isinstance(flaw, Flaw)
    assert "in several orders" in flaw.reason


def test_the_zone_that_was_given_is_that_of_the_times(tmp_path: Path) -> None:
    path = chat(tmp_path, "31.7.20, 10:00 - Ann: summer")
    [unknown] = read(path)
    [known] = read(path, ReadOptions(time_zone=ZoneInfo("Europe/Lisbon"), own_name="Ann"))
    assert isinstance(unknown, ChatMessage)
    assert isinstance(known, ChatMessage)
    assert (unknown.created_at, unknown.tz_known) == (datetime(2020, 7, 31, 10, tzinfo=UTC), False)
    assert (known.created_at, known.tz_known) == (datetime(2020, 7, 31, 9, tzinfo=UTC), True)
    assert (unknown.role, known.role) == ("other", "user")


def test_a_chat_is_named_after_its_file_or_the_zip_around_it(tmp_path: Path) -> None:
    line = "[31.07.20, 10:00:00] Ann: hi"
    with zipfile.ZipFile(tmp_path / "WhatsApp Chat - Tea lovers.zip", "w") as file:
        file.writestr("_chat.txt", line)
    paths = [
        tmp_path / "WhatsApp Chat - Tea lovers.zip",
        chat(tmp_path, line, name="WhatsApp Chat with Bob.txt"),
        chat(tmp_path, line, name="Carol.txt"),
    ]
    found = [message for path in paths for message in read(path)]
    assert [m.conversation_id for m in found if isinstance(m, ChatMessage)] == ["Tea lovers", "Bob", "Carol"]


def test_a_signal_export_is_read_alike(tmp_path: Path) -> None:
    [message] = read(chat(tmp_path, "[2019-12-24, 12:23] Jane: merry Christmas"))
    assert isinstance(message, ChatMessage)
    assert (message.author, message.text) == ("Jane", "merry Christmas")


@pytest.mark.parametrize("line", ["Dear diary", "10:00 - Ann: hi", "99/99/99, 10:00 - Ann: hi", "1/2/20 hi"])
def test_other_text_is_no_chat(tmp_path: Path, line: str) -> None:
    with open_tree(chat(tmp_path, line, "31.7.20, 10:00 - Ann: later")) as tree:
        assert detect(tree).found == ()
