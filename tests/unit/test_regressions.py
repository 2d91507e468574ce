"""Defects that were there once: damage, hostile input and settings that must be refused in words."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from ingest import jsonl, producer
from ingest.bulk import BulkIngest
from ingest.jsonl import read_jsonl
from ingest.producer import chunks
from memory.catalogue import Catalogue
from memory.errors import IndexRefused, InvalidMemory, SettingsError, SnapshotFailed
from memory.messages import from_envelope, from_mapping, peek_key, raw_memory
from memory.settings import read_settings
from memory.snapshot import SnapshotFolder
from memory.validation import check_limit, check_metadata, check_number, check_text, check_type
from tests.unit.test_faiss_index import index_of
from tests.unit.test_snapshot import IDENTITY, file_of, loaded, snapshot_at, told


def test_a_manifest_with_any_bit_flipped_is_refused(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "index")
    path = file_of(folder, folder.save(snapshot_at(20), IDENTITY), "manifest.json")
    whole = path.read_bytes()
    wrong = []
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            if loaded(folder.directory) != told(snapshot_at(20)):
                wrong.append((whole[place - 8 : place + 8], "wrong content"))
        except IndexRefused:
            continue
        except Exception as error:  # noqa: BLE001 (any other error is what is looked for)
            wrong.append((whole[place - 8 : place + 8], repr(error)))
    assert wrong == []


@pytest.mark.parametrize("body", [b'{"format": 1}', b"[" * 100_000], ids=["keys missing", "too deep"])
def test_a_manifest_that_lacks_anything_is_refused(tmp_path: Path, body: bytes) -> None:
    folder = SnapshotFolder(tmp_path / "index")
    file_of(folder, folder.save(snapshot_at(20), IDENTITY), "manifest.json").write_bytes(body)
    with pytest.raises(IndexRefused):
        folder.load(IDENTITY)


@pytest.mark.parametrize("current", ["..", "\0" * 33, "x" * 300], ids=["parent", "zeros", "long"])
def test_what_current_names_wrongly_can_be_put_aside(tmp_path: Path, current: str) -> None:
    folder = SnapshotFolder(tmp_path / "index")
    (folder.directory / "CURRENT").write_text(current)
    with pytest.raises(IndexRefused):
        folder.load(IDENTITY)
    if refused := folder.current():
        folder.quarantine(refused)
    assert folder.current() is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_catalogue_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "catalogue.npz"
    groups = snapshot_at(20).catalogue.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(IndexRefused):
        Catalogue.load(path, groups)


def test_json_nested_just_below_the_parsers_limit_is_refused_cleanly() -> None:
    for depth in range(800, 1100):
        nest = b"[" * depth + b"]" * depth
        for body in (nest, b'{"v":1,"uid":' + nest + b',"namespace":"n","content":"x"}'):
            with pytest.raises(InvalidMemory):
                from_envelope(body, max_content_bytes=100)
            peek_key(body)


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_number("min_score", 10**400, low=-1, high=1),
        lambda: check_number("min_score", 10**5000, low=-1, high=1),
        lambda: check_limit(10**5000),
        lambda: check_text("content", 10**5000, max_bytes=10),
        lambda: check_type(10**5000),
    ],
)
def test_a_huge_number_anywhere_is_refused_cleanly(check: Any) -> None:
    with pytest.raises(InvalidMemory):
        check()


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"a": [m]}], ids=["flat", "nested"])
def test_any_mapping_is_metadata(wrap: Any) -> None:
    assert check_metadata(wrap(MappingProxyType({"a": 1}))) == wrap({"a": 1})


def test_a_field_whose_name_is_unprintable_is_refused_with_a_message_that_can_be_written(
    tmp_path: Path,
) -> None:
    line = json.dumps({"content": "x", "\ud800": 1}).encode()
    (bad,) = read_jsonl(BytesIO(line), name="f", max_content_bytes=100)
    bad.reason.encode()  # type: ignore[union-attr]
    bulk = BulkIngest(None, outcomes=lambda _: [], rejects=tmp_path / "rejects")  # type: ignore[arg-type]
    bulk.reject(bad)  # type: ignore[arg-type]
    assert bulk.report.n_rejected == 1


def test_a_long_field_name_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidMemory) as refusal:
        from_mapping({"content": "x", "y" * 100_000: 1}, max_content_bytes=100)
    assert len(str(refusal.value)) < 1000


def test_unknown_fields_of_several_types_are_refused() -> None:
    with pytest.raises(InvalidMemory):
        from_mapping({"content": "x", 1: 1, "z": 2}, max_content_bytes=100)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEMORY_DB_URL", "mysql://user:hunt:er2@host/db"),
        ("MEMORY_DB_URL", "mysql://user:hunt/er2@host/db"),
        ("MEMORY_DB_URL", "postgres://user:hunt@er2@host/db"),
        ("MEMORY_DB_URL", "mysql://host/db?user=u&password=hunter2"),
        ("REDIS_URL", "redis://:hunt/er2@host"),
    ],
)
def test_a_password_with_any_character_is_hidden(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert "hunt" not in str(refusal.value)
    assert "er2" not in str(refusal.value)


def test_the_ids_to_search_among_may_come_in_any_order() -> None:
    index, rows = index_of(20)
    found = index.search(rows[0], k=3, among=np.array([20, 3, 2, 1, 5, 6]))
    assert {i for i, _ in found} <= {20, 3, 2, 1, 5, 6}
    assert found[0][0] == 1


def test_chunks_are_bounded_in_bytes_not_in_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "CHUNK_BYTES", 1000)
    raws = [raw_memory("雪" * 200, max_content_bytes=2000) for _ in range(6)]
    assert [len(chunk) for chunk in chunks(raws)] == [2, 2, 2]


@pytest.mark.parametrize("url", ["redis:6379", "redis://", "redis://host:port/0"])
def test_a_redis_url_without_a_usable_host_and_port_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL = "):
        read_settings()


@pytest.mark.parametrize("url", ["postgresql:foo", "sqlite:///:memory:?cache=shared"])
def test_a_database_url_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MEMORY_DB_URL", url)
    with pytest.raises(SettingsError, match=r"^MEMORY_DB_URL = "):
        read_settings()


def test_an_unknown_override_is_refused_as_a_setting() -> None:
    with pytest.raises(SettingsError):
        read_settings(embed_batchh=3)


def test_a_blank_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", " ")
    with pytest.raises(SettingsError, match=r"^EMBEDDING_MODEL = ' '"):
        read_settings()


def test_a_refused_number_names_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_EMBED_BATCH", "many")
    with pytest.raises(SettingsError, match="4096"):
        read_settings()


def test_saves_that_fail_again_and_again_do_not_pile_up(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "index")
    folder.save(snapshot_at(20), IDENTITY)
    rename = os.rename

    def fail_at_current(source: Any, target: Any) -> None:
        if Path(target).name == "CURRENT":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fail_at_current)
        for _ in range(5):
            with pytest.raises(SnapshotFailed):
                folder.save(snapshot_at(30), IDENTITY)
    assert len(list((folder.directory / "snapshots").iterdir())) <= 2


def test_a_line_that_begins_with_more_blanks_than_a_line_may_have_bytes_is_refused_not_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 50)
    line = b" " * 60 + b'{"content": "It rained."}\n'
    assert len(list(read_jsonl(BytesIO(line), name="f", max_content_bytes=100))) == 1
