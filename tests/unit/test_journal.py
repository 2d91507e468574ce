"""The journal of an import: the last whole line of each input counts, and nothing in it can do harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import journal as journal_module
from ingest.journal import Journal, Progress


def progress(n: int) -> Progress:
    return Progress(n_read=n, n_settled=n, settled_uid=("ns", f"uid {n}"), oldest="2020-01-01T00:00:00+00:00")


def test_what_was_noted_is_found_again_by_the_same_command_alone(tmp_path: Path) -> None:
    Journal(tmp_path, "import a").note("file", progress(5))
    assert Journal(tmp_path, "import a").of("file") == progress(5)
    assert Journal(tmp_path, "import a").of("another file") == Progress()
    assert Journal(tmp_path, "import b").of("file") == Progress()


def test_the_last_whole_line_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "import")
    journal.note("file", progress(5))
    journal.note("file", progress(6))
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    journal.note("file", progress(7))
    last_line = path.read_bytes()[len(whole) :]
    for n_bytes in range(len(last_line) - 1):
        path.write_bytes(whole + last_line[:n_bytes])
        assert Journal(tmp_path, "import").of("file") == progress(6)


@pytest.mark.parametrize("garbage", ["[]", "null", '{"input": 1}', '{"input": "file"}', "\x00\x00", "\ud800"])
def test_garbage_is_a_new_start(tmp_path: Path, garbage: str) -> None:
    Journal(tmp_path, "import").note("file", progress(5))
    [path] = tmp_path.iterdir()
    path.write_bytes(garbage.encode(errors="surrogatepass") + b"\n")
    assert Journal(tmp_path, "import").of("file") == Progress()


def test_a_long_one_is_written_anew_with_a_line_for_each_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MOST_LINES", 10)
    journal = Journal(tmp_path, "import")
    for n in range(1, 12):
        journal.note(f"file {n % 2}", progress(n))
    [path] = tmp_path.iterdir()
    assert len(path.read_text().splitlines()) == 2
    again = Journal(tmp_path, "import")
    assert (again.of("file 0"), again.of("file 1")) == (progress(10), progress(11))


def test_a_closed_one_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "import")
    journal.note("file", progress(5))
    journal.close()
    assert list(tmp_path.iterdir()) == []
    assert journal.of("file") == Progress()
    journal.close()
