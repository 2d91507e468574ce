"""Snapshots: killed, cut off from power or damaged at any point, the right content is loaded or none."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.catalogue import Catalogue
from memory.embedding import unit_rows
from memory.errors import IndexRefused, SnapshotFailed
from memory.faiss_index import FAISSIndex
from memory.models import Identity, Seq
from memory.snapshot import Snapshot, SnapshotFolder, seq_of
from memory.window_index import Parts, WindowIndex
from memory.word_index import WordIndex
from tests.making import text_of

DIM = 8
IDENTITY = Identity(lineage="history", model_fingerprint="model", dim=DIM)
FILES = ["vectors.faiss", "catalogue.npz", "windows.faiss", "windows.npz", "words.npz", "manifest.json"]
EVERYWHERE = np.full(DIM, DIM**-0.5, dtype=np.float32)


def snapshot_at(seq: int) -> Snapshot:
    """Return a snapshot with `seq` memories, whose vectors are of this `seq` only; each third has several."""
    index, windows, catalogue = FAISSIndex(DIM), WindowIndex(FAISSIndex(DIM)), Catalogue()
    ids = range(1, seq + 1)
    groups = [("default", "task") if i % 2 else ("名前", "semantic") for i in ids]
    counts = np.array([1 + 2 * (i % 3 == 0) for i in ids], dtype=np.int64)
    vectors = unit_rows(np.random.default_rng(seq).normal(size=(counts.sum(), DIM)).astype(np.float32))
    parts = Parts.of(vectors, counts)
    index.add_embeddings(parts.firsts, ids)
    windows.put(ids, groups, parts)
    catalogue.put(ids, groups)
    words = WordIndex()
    texts = [
        text_of(i, namespace=namespace, content=f"note {i}")
        for i, (namespace, _) in zip(ids, groups, strict=True)
    ]
    words.take(words.change(removed=(), texts=texts))
    return Snapshot(index=index, windows=windows, catalogue=catalogue, words=words, applied_seq=Seq(seq))


def words_of(snapshot: Snapshot, namespace: str) -> list[int]:
    words = snapshot.words
    matches = words.matches(words.analyzer.query_terms("note"), namespace=namespace)
    return sorted(words.ids_of(matches.scores()[0]).tolist())


def told(snapshot: Snapshot) -> dict[str, Any]:
    """Return all that a snapshot says, ready to compare."""
    select = snapshot.catalogue.select
    return {
        "seq": snapshot.applied_seq,
        "ids": snapshot.index.ids().tolist(),
        "vectors": snapshot.index.vectors(snapshot.index.ids()).tobytes(),
        "further": snapshot.windows.owners().tolist(),
        "nearest": snapshot.windows.search(
            EVERYWHERE, namespace="default", memory_types=None, k=100, min_score=-1
        ),
        "words": words_of(snapshot, "default"),
        "default": select(namespace="default", memory_types=["task"]).tolist(),
        "named": select(namespace="名前", memory_types=["semantic"]).tolist(),
    }


def loaded(directory: Path) -> dict[str, Any]:
    return told(SnapshotFolder(directory).load(IDENTITY)[1])


@pytest.fixture
def folder(tmp_path: Path) -> SnapshotFolder:
    return SnapshotFolder(tmp_path / "index")


def file_of(folder: SnapshotFolder, name: str, file: str) -> Path:
    return folder.directory / file if file == "CURRENT" else folder.directory / "snapshots" / name / file


class Disk:
    """Photographs a directory after each file operation on it: as a kill or a power cut would leave it.

    A kill leaves what was done so far. A power cut may also tear every file that was not flushed, and
    undo every renaming whose directory was not.
    """

    def __init__(self, directory: Path, photos: Path) -> None:
        self.directory = directory
        self.photos = photos
        self.taken: list[Path] = []
        self._flushed = {path.stat().st_ino for path in directory.rglob("*")}
        self._renamings: list[tuple[Path, Path]] = []
        self._photographing = False
        current = directory / "CURRENT"
        self._old = {current: current.read_bytes()} if current.exists() else {}

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(os, "fsync", self._after(os.fsync, self._note_flush))
        patch.setattr(os, "mkdir", self._after(os.mkdir, lambda *_: None))
        patch.setattr(os, "rename", self._after(os.rename, self._note_renaming))

    def _after(self, real: Callable[..., None], note: Callable[..., None]) -> Callable[..., None]:
        def operate(*args: Any, **kwargs: Any) -> None:
            if self._photographing:  # which works with files, too
                return real(*args, **kwargs)
            self._photograph()  # what was written since the last operation may be there in part
            real(*args, **kwargs)
            note(*args)
            return self._photograph()

        return operate

    def _note_renaming(self, source: Path, target: Path) -> None:
        self._renamings.append((source, target))

    def _note_flush(self, descriptor: int) -> None:
        self._flushed.add(os.fstat(descriptor).st_ino)
        flushed = Path(f"/proc/self/fd/{descriptor}").resolve()
        self._renamings = [r for r in self._renamings if r[1].parent != flushed]

    def _photograph(self) -> None:
        self._photographing = True
        unflushed = [
            p for p in self.directory.rglob("*") if p.is_file() and p.stat().st_ino not in self._flushed
        ]
        self._take(torn=[], undone=())
        for n in range(len(self._renamings) + 1):
            for undone in itertools.combinations(self._renamings, n):
                self._take(torn=unflushed, undone=undone)
        self._photographing = False

    def _take(self, *, torn: list[Path], undone: tuple[tuple[Path, Path], ...]) -> None:
        photo = self.photos / str(len(self.taken))
        shutil.copytree(self.directory, photo)

        def there(path: Path) -> Path:
            return photo / path.relative_to(self.directory)

        for path in torn:
            os.truncate(there(path), path.stat().st_size // 2)
        for source, target in reversed(undone):
            shutil.move(there(target), there(source))
            if target in self._old:
                there(target).write_bytes(self._old[target])
        self.taken.append(photo)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def photographed_save(folder: SnapshotFolder, snapshot: Snapshot, photos: Path) -> Iterator[Path]:
    disk = Disk(folder.directory, photos)
    with pytest.MonkeyPatch.context() as patch:
        disk.watch(patch)
        folder.save(snapshot, IDENTITY)
    yield from disk.taken


def test_a_snapshot_comes_back_exactly_as_it_was(folder: SnapshotFolder) -> None:
    name = folder.save(snapshot_at(20), IDENTITY)
    assert folder.load(IDENTITY)[0] == name
    assert loaded(folder.directory) == told(snapshot_at(20))


def test_an_empty_index_comes_back_too(folder: SnapshotFolder) -> None:
    folder.save(snapshot_at(0), IDENTITY)
    assert loaded(folder.directory) == told(snapshot_at(0))


def test_a_loaded_index_can_be_changed_and_saved_again(folder: SnapshotFolder) -> None:
    folder.save(snapshot_at(20), IDENTITY)
    _, content = folder.load(IDENTITY)
    new = unit_rows(np.ones((2, DIM), dtype=np.float32))
    assert content.index.remove([1, 99]) == 1
    content.index.add_embeddings(new, [2, 21])
    content.catalogue.drop([1])
    content.catalogue.put([2, 21], [("default", "task")] * 2)
    content.words.take(content.words.change(removed=[1, 99], texts=[text_of(2), text_of(21)]))
    folder.save(replace(content, applied_seq=Seq(23)), IDENTITY)
    assert loaded(folder.directory)["ids"] == list(range(2, 22))
    assert folder.load(IDENTITY)[1].index.vectors([2, 21]).tobytes() == new.tobytes()


def test_without_any_snapshot_the_load_is_refused(folder: SnapshotFolder) -> None:
    assert folder.current() is None
    with pytest.raises(IndexRefused, match="there is no snapshot yet"):
        folder.load(IDENTITY)


def test_killed_or_without_power_at_any_point_of_a_save_the_old_or_the_new_one_is_current(
    folder: SnapshotFolder, photos: Path
) -> None:
    folder.save(snapshot_at(20), IDENTITY)
    old, new = told(snapshot_at(20)), told(snapshot_at(30))
    seen = [loaded(photo) for photo in photographed_save(folder, snapshot_at(30), photos)]
    assert len(seen) > 20
    assert all(content in (old, new) for content in seen)
    assert (seen[0], seen[-1]) == (old, new)


def test_killed_or_without_power_at_any_point_of_the_first_save_there_is_none_or_the_new_one(
    folder: SnapshotFolder, photos: Path
) -> None:
    new = told(snapshot_at(30))
    n_complete = 0
    for photo in photographed_save(folder, snapshot_at(30), photos):
        if SnapshotFolder(photo).current() is None:
            continue
        assert loaded(photo) == new
        n_complete += 1
    assert n_complete > 0


def test_once_a_save_has_returned_a_power_cut_loses_nothing(folder: SnapshotFolder, photos: Path) -> None:
    folder.save(snapshot_at(20), IDENTITY)
    disk = Disk(folder.directory, photos)
    with pytest.MonkeyPatch.context() as patch:
        disk.watch(patch)
        folder.save(snapshot_at(30), IDENTITY)
    assert disk._renamings == []
    assert {p.stat().st_ino for p in folder.directory.rglob("*")} - disk._flushed == set()


@pytest.mark.parametrize("operation", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize("n_good", range(6))
def test_a_save_that_fails_leaves_the_old_one_or_the_new_and_the_next_save_works(
    folder: SnapshotFolder, operation: str, n_good: int
) -> None:
    folder.save(snapshot_at(20), IDENTITY)
    real, calls = getattr(os, operation), itertools.count()

    def fail(*args: Any, **kwargs: Any) -> None:
        if next(calls) >= n_good:
            raise OSError(28, "No space left on device")
        real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, operation, fail)
        with contextlib.suppress(SnapshotFailed):
            folder.save(snapshot_at(30), IDENTITY)
    assert loaded(folder.directory) in (told(snapshot_at(20)), told(snapshot_at(30)))
    assert not list(folder.directory.glob("snapshots/tmp-*"))
    name = folder.save(snapshot_at(40), IDENTITY)
    folder.prune(keep={name})
    assert loaded(folder.directory) == told(snapshot_at(40))


@pytest.mark.parametrize("file", [*FILES, "CURRENT"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 1])
def test_a_file_cut_short_is_refused(folder: SnapshotFolder, file: str, share: float) -> None:
    path = file_of(folder, folder.save(snapshot_at(20), IDENTITY), file)
    os.truncate(path, min(int(path.stat().st_size * share), path.stat().st_size - 1))
    with pytest.raises(IndexRefused):
        folder.load(IDENTITY)


@pytest.mark.parametrize("file", ["vectors.faiss", "catalogue.npz", "CURRENT"])
def test_a_file_with_any_bit_flipped_is_refused(folder: SnapshotFolder, file: str) -> None:
    path = file_of(folder, folder.save(snapshot_at(20), IDENTITY), file)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(IndexRefused):
            folder.load(IDENTITY)
    path.write_bytes(whole)
    assert loaded(folder.directory) == told(snapshot_at(20))


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_refused(folder: SnapshotFolder, file: str) -> None:
    file_of(folder, folder.save(snapshot_at(20), IDENTITY), file).unlink()
    with pytest.raises(IndexRefused, match="cannot be read"):
        folder.load(IDENTITY)


@pytest.mark.parametrize("file", ["vectors.faiss", "catalogue.npz"])
def test_a_file_of_another_snapshot_is_refused(folder: SnapshotFolder, file: str) -> None:
    old, new = (folder.save(snapshot_at(seq), IDENTITY) for seq in (20, 21))
    shutil.copy(file_of(folder, old, file), file_of(folder, new, file))
    with pytest.raises(IndexRefused, match=f"{file} does not have the checksum"):
        folder.load(IDENTITY)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b'{"format": 2}', b"\xff", b"not JSON"])
def test_a_manifest_of_another_format_is_refused(folder: SnapshotFolder, body: bytes) -> None:
    file_of(folder, folder.save(snapshot_at(20), IDENTITY), "manifest.json").write_bytes(body)
    with pytest.raises(IndexRefused, match="its manifest"):
        folder.load(IDENTITY)


@pytest.mark.parametrize(
    "other", [{"lineage": "another history"}, {"model_fingerprint": "another model"}, {"dim": 9}], ids=str
)
def test_a_snapshot_made_for_other_data_is_refused(folder: SnapshotFolder, other: dict[str, Any]) -> None:
    folder.save(snapshot_at(20), IDENTITY)
    with pytest.raises(IndexRefused, match="made for"):
        folder.load(replace(IDENTITY, **other))


def test_a_snapshot_whose_vectors_have_another_length_than_it_says_is_refused(folder: SnapshotFolder) -> None:
    wrong = replace(IDENTITY, dim=DIM + 1)
    folder.save(snapshot_at(20), wrong)
    with pytest.raises(IndexRefused, match="20 vectors of 8 numbers"):
        folder.load(wrong)


def test_a_snapshot_whose_catalogue_lists_other_memories_is_refused(folder: SnapshotFolder) -> None:
    folder.save(replace(snapshot_at(20), catalogue=snapshot_at(19).catalogue), IDENTITY)
    with pytest.raises(IndexRefused, match="20 vectors of 8 numbers, 19 listed"):
        folder.load(IDENTITY)


@pytest.mark.parametrize("name", ["", " ", "/etc", "../index", "a/b", "."])
def test_current_never_leads_out_of_the_folder(folder: SnapshotFolder, name: str) -> None:
    (folder.directory / "CURRENT").write_text(name)
    assert folder.current() is None


def test_a_quarantined_snapshot_is_kept_byte_for_byte_and_no_longer_current(folder: SnapshotFolder) -> None:
    name = folder.save(snapshot_at(20), IDENTITY)
    before = {file: file_of(folder, name, file).read_bytes() for file in FILES}
    kept = folder.quarantine(name)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert folder.current() is None
    folder.prune(keep=set())
    assert sorted(path.name for path in kept.iterdir()) == sorted(FILES)
    folder.save(snapshot_at(30), IDENTITY)
    assert loaded(folder.directory) == told(snapshot_at(30))


def test_a_snapshot_that_is_gone_can_be_quarantined_twice(folder: SnapshotFolder) -> None:
    name = folder.save(snapshot_at(20), IDENTITY)
    folder.quarantine(name)
    folder.quarantine(name)
    assert folder.current() is None


def test_pruning_keeps_only_what_is_named(folder: SnapshotFolder) -> None:
    names = [folder.save(snapshot_at(seq), IDENTITY) for seq in (5, 6, 7)]
    (folder.directory / "snapshots" / f"tmp-{names[2]}").mkdir()
    folder.prune(keep={names[1], names[2]})
    assert {p.name for p in (folder.directory / "snapshots").iterdir()} == {names[1], names[2]}
    assert loaded(folder.directory) == told(snapshot_at(7))


def test_the_one_kept_before_is_the_newest_older_complete_one(folder: SnapshotFolder) -> None:
    names = [folder.save(snapshot_at(seq), IDENTITY) for seq in (9, 10, 100)]
    (folder.directory / "snapshots" / f"tmp-{names[1]}").mkdir()
    assert [folder.kept_before(name) for name in names] == [None, names[0], names[1]]


def test_a_name_tells_the_last_event(folder: SnapshotFolder) -> None:
    assert seq_of(folder.save(snapshot_at(20), IDENTITY)) == 20


def test_only_its_user_may_look_into_the_folder(folder: SnapshotFolder) -> None:
    assert folder.directory.stat().st_mode & 0o777 == 0o700
