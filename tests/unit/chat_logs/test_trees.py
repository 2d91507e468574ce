"""Files, folders and zips: what is in them is read, nothing outside of them is, and damage is said."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path

import pytest

from ingest.chat_logs import trees
from ingest.chat_logs.trees import UnreadableMember, open_tree


def read_all(path: Path) -> dict[str, bytes]:
    with open_tree(path) as tree:
        found = {}
        for member in tree.members:
            with member.open() as stream:
                found[member.name] = stream.read()
        return found


def test_a_folder_is_read_with_all_below_it_and_no_link_in_it_is_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "folder").mkdir(parents=True)
    (inside / "below").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    (outside / "folder/secret").write_text("secret")
    (inside / "below/b").write_text("b")
    (inside / "a").write_text("a")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "dangling").symlink_to(outside / "nothing")
    (inside / "folder").symlink_to(outside / "folder")
    os.mkfifo(inside / "pipe")
    assert read_all(inside) == {"a": b"a", "below/b": b"b"}
    with open_tree(inside) as tree:
        passed_over = {Path(flaw.place.file).name: flaw.reason for flaw in tree.flaws}
    assert set(passed_over) == {"link", "dangling", "folder", "pipe"}
    assert passed_over["folder"] == "a link to a folder is not followed"


def test_a_link_that_was_given_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_all(tmp_path / "link") == {"link": b"a"}


def test_names_in_a_zip_decide_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder/log.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        for name in ("../up", "/absolute", "a/b", "new\nline", "folder/"):
            file.writestr(name, name)
    assert set(read_all(path)) == {"../up", "/absolute", "a/b", "new\nline"}
    with open_tree(path) as tree:
        assert all(member.shown.isprintable() for member in tree.members)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["folder", "log.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_both_members_of_one_name_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as file:
        file.writestr("a", "first")
        file.writestr("a", "second")
    with open_tree(tmp_path / "log.zip") as tree:
        contents = []
        for member in tree.members:
            with member.open() as stream:
                contents.append(stream.read())
    assert contents == [b"first", b"second"]


def test_a_member_that_unpacks_to_far_more_than_text_does_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_ALWAYS_ALLOWED_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "log.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(4 * 2**20))
        file.writestr("text", b"0123456789" * 1000)
    with open_tree(tmp_path / "log.zip") as tree:
        bomb, text = tree.members
        with text.open() as stream:
            assert len(stream.read()) == 10_000
        with pytest.raises(UnreadableMember, match="over 500 times its size"), bomb.open() as stream:
            stream.read()


def test_a_zip_cut_off_anywhere_is_told_as_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", os.urandom(1000))
    whole = (tmp_path / "log.zip").read_bytes()
    for n_bytes in range(0, len(whole), 7):
        (tmp_path / "log.zip").write_bytes(whole[:n_bytes])
        with pytest.raises(UnreadableMember, match=r"downloaded completely|damaged"):
            read_all(tmp_path / "log.zip")


def test_every_byte_of_a_zip_may_be_damaged_and_only_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", "some text " * 10)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for value in (0, 1, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(UnreadableMember):
                read_all(path)


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "text")
    whole = bytearray(path.read_bytes())
    whole[6] |= 1  # the flag, in the member's head and in the list
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    with pytest.raises(UnreadableMember, match="it is encrypted"):
        read_all(path)


def test_what_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("nothing", "there is no such file"), ("pipe", "this is no file")):
        with pytest.raises(UnreadableMember, match=reason):
            read_all(tmp_path / name)


def test_a_file_that_vanishes_before_it_is_opened_is_a_flaw_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with open_tree(tmp_path) as tree:
        [member] = tree.members
        (tmp_path / "a").unlink()
        with pytest.raises(UnreadableMember, match="No such file"), member.open():
            pass
