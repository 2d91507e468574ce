"""Which memories are in the index, and the namespace and type of each: the filters' side of it."""

from __future__ import annotations

import threading
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import IndexRefused
from memory.id_bits import IdBits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.int32]

Group = tuple[str, str]
"""(namespace, memory type)"""

_NO_GROUP = -1
_MOST_GONE = 0.25  # of the places; then they are closed up
_MOST_READY = 64  # choices, of 125 KB each at most at a million memories
_BITS_OF_AN_ID = 64  # as large as an id: where ids are that far apart, bits take more room than ids do


class Catalogue:
    """Two parallel columns sorted by id: 12 bytes a memory. Changes need the caller's lock; reads may share.

    A dropped id stays in its place, without a group, until a quarter of all are such: so a change costs
    what it changes, however much there is.
    """

    def __init__(self) -> None:
        self._n = 0  # how many places are used
        self._n_gone = 0  # how many of these have no group any more
        self._ids: Ids = np.empty(0, dtype=np.int64)
        self._codes: Codes = np.empty(0, dtype=np.int32)
        self._groups: list[Group] = []
        self._code_of: dict[Group, int] = {}
        self._codes_in: dict[str, list[int]] = {}
        self._sizes: list[int] = []  # by code
        self._ready: OrderedDict[tuple[int, ...], Ids | IdBits] = OrderedDict()  # by codes, last used last
        self._ready_lock = threading.Lock()

    def __len__(self) -> int:
        return self._n - self._n_gone

    def ids(self) -> Ids:
        """Return every id, ascending."""
        return self._columns()[0]

    def put(self, ids: Sequence[int] | Ids, groups: Sequence[Group]) -> None:
        """Set the group of distinct ids, new or known."""
        if not len(ids):
            return
        new_ids = np.asarray(ids, dtype=np.int64)
        order = np.argsort(new_ids)
        new_ids = new_ids[order]
        new_codes = np.asarray([self._code(group) for group in groups], dtype=np.int32)[order]
        places, known = self._find(new_ids)
        self._count(self._codes[places[known]], -1)
        self._codes[places[known]] = new_codes[known]
        self._insert(new_ids[~known], new_codes[~known])
        self._count(new_codes, 1)
        self._note(new_ids, new_codes)

    def drop(self, ids: Sequence[int] | Ids) -> None:
        """Forget these ids; unknown ones are no error."""
        gone = np.unique(np.asarray(ids, dtype=np.int64))
        places, known = self._find(gone)
        self._count(self._codes[places[known]], -1)
        self._codes[places[known]] = _NO_GROUP
        self._n_gone += int(known.sum())
        self._note(gone, np.full(len(gone), _NO_GROUP, dtype=np.int32))
        if self._n_gone > _MOST_GONE * self._n:
            self._ids, self._codes = self._columns()
            self._n, self._n_gone = len(self._ids), 0

    def select(self, *, namespace: str, memory_types: Iterable[str] | None) -> Ids:
        """Return the ids of a namespace, only of these types if given, ascending."""
        chosen = self.choose(namespace=namespace, memory_types=memory_types)
        if chosen is None:
            return self.ids()
        return chosen.ids() if isinstance(chosen, IdBits) else chosen

    def choose(self, *, namespace: str, memory_types: Iterable[str] | None) -> Ids | IdBits | None:
        """Return the same as `select`, in the form that is the quickest to search among.

        These are ids, ascending, where there are few; bits, which the next change alters, where there are
        many; and `None` where it is simply all of them. What was asked for lately is ready, and kept so by
        each change: to look through all groups takes milliseconds at a million memories.
        """
        wanted = None if memory_types is None else set(memory_types)
        codes = tuple(
            code
            for code in self._codes_in.get(namespace, ())
            if self._sizes[code] and (wanted is None or self._groups[code][1] in wanted)
        )
        n = sum(self._sizes[code] for code in codes)
        if n == len(self):
            return None if n else np.empty(0, dtype=np.int64)
        as_bits = n * _BITS_OF_AN_ID >= int(self._ids[self._n - 1])
        with self._ready_lock:
            ready = self._ready.get(codes)
            if ready is None or isinstance(ready, IdBits) != as_bits:
                ids = self._ids_of(codes)
                ready = self._ready[codes] = IdBits(ids) if as_bits else ids
            self._ready.move_to_end(codes)
            while len(self._ready) > _MOST_READY:
                self._ready.popitem(last=False)
            return ready

    def present(self, ids: Sequence[int] | Ids) -> Ids:
        """Return those of `ids` that are in the catalogue, ascending, each once."""
        asked = np.unique(np.asarray(ids, dtype=np.int64))
        return asked[self.has(asked)]

    def has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Return bool (n,): which of these ids are in the catalogue."""
        places, known = self._find(ids)
        known[known] = self._codes[places[known]] != _NO_GROUP
        return known

    def belong(
        self, ids: Ids, *, namespace: str, memory_types: Iterable[str] | None
    ) -> npt.NDArray[np.bool_]:
        """Return bool (n,): which of these ids are of a namespace, and of these types if given."""
        wanted = None if memory_types is None else set(memory_types)
        codes = [
            c for c in self._codes_in.get(namespace, ()) if wanted is None or self._groups[c][1] in wanted
        ]
        places, known = self._find(ids)
        known[known] = np.isin(self._codes[places[known]], codes)
        return known

    def groups_of(self, ids: Ids) -> list[Group]:
        """Return the groups of ids that are in the catalogue, in this order."""
        places, _ = self._find(ids)
        return [self._groups[code] for code in self._codes[places]]

    def save(self, path: Path) -> list[Group]:
        """Write the columns to `path` (.npz); return the groups, in the order of their codes."""
        ids, codes = self._columns()
        with path.open("wb") as file:
            np.savez(file, ids=ids, codes=codes)
        return list(self._groups)

    @classmethod
    def load(cls, path: Path, groups: Sequence[Sequence[str]]) -> Catalogue:
        """Read what `save` wrote.

        Raises:
            IndexRefused: the file and the groups do not fit each other.

        """
        ids, codes = read_columns(path, "ids", "codes")
        catalogue = cls()
        catalogue._ids, catalogue._codes = ids, codes.astype(np.int32)
        for namespace, memory_type in groups:
            catalogue._code((namespace, memory_type))
        _check_columns(catalogue._ids, catalogue._codes, n_groups=len(groups), path=path)
        catalogue._n = len(ids)
        catalogue._sizes = np.bincount(catalogue._codes, minlength=len(catalogue._groups)).tolist()
        return catalogue

    def _code(self, group: Group) -> int:
        if group not in self._code_of:
            self._code_of[group] = len(self._groups)
            self._codes_in.setdefault(group[0], []).append(len(self._groups))
            self._groups.append(group)
            self._sizes.append(0)
        return self._code_of[group]

    def _columns(self) -> tuple[Ids, Codes]:
        """Return copies of the columns without what is gone."""
        ids, codes = self._ids[: self._n], self._codes[: self._n]
        there = codes != _NO_GROUP
        return ids[there], codes[there]

    def _find(self, ids: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return where these ids are, or would be, and whether they are, gone or not."""
        used = self._ids[: self._n]
        places = np.searchsorted(used, ids)
        known = places < self._n
        known[known] = used[places[known]] == ids[known]
        return places, known

    def _ids_of(self, codes: Sequence[int]) -> Ids:
        used = self._codes[: self._n]
        there = np.zeros(self._n, dtype=bool)
        for code in codes:  # as many as there are types, at most
            there |= used == code
        return self._ids[: self._n][there]

    def _count(self, codes: Codes, change: int) -> None:
        """Note that one memory for each of these codes comes (1) or goes (-1)."""
        found, counts = np.unique(codes, return_counts=True)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True):
            if code == _NO_GROUP:  # it had gone before, and is back
                self._n_gone += change * count
            else:
                self._sizes[code] += change * count

    def _insert(self, ids: Ids, codes: Codes) -> None:
        """Insert new ids, ascending; only what lies behind the first one moves."""
        if not len(ids):
            return
        n, self._n = self._n, self._n + len(ids)
        if self._n > len(self._ids):
            self._ids, self._codes = _grown(self._ids, self._n), _grown(self._codes, self._n)
        first = int(np.searchsorted(self._ids[:n], ids[0]))
        places = np.searchsorted(self._ids[first:n], ids)
        self._codes[first : self._n] = np.insert(self._codes[first:n], places, codes)
        self._ids[first : self._n] = np.insert(self._ids[first:n], places, ids)

    def _note(self, ids: Ids, codes: Codes) -> None:
        """Bring what is ready up to date: these ids, ascending, have these groups now."""
        changed, highest = set(codes.tolist()), int(ids.max(initial=0))
        for wanted, ready in list(self._ready.items()):
            if isinstance(ready, IdBits) and highest > _BITS_OF_AN_ID * (len(ready) + len(ids)):
                del self._ready[wanted]  # too sparse for bits by now
                continue
            chosen = np.zeros(len(ids), dtype=bool) if changed.isdisjoint(wanted) else np.isin(codes, wanted)
            if isinstance(ready, IdBits):
                ready.discard(ids[~chosen])
                ready.add(ids[chosen])
            else:
                self._ready[wanted] = _changed(ready, gone=ids[~chosen], new=ids[chosen])


def read_columns(path: Path, *names: str) -> list[npt.NDArray[np.int64]]:
    """Return columns of whole numbers in a file that `numpy.savez` wrote.

    Raises:
        IndexRefused: it cannot be read, or lacks one.

    """
    try:
        with np.load(path, allow_pickle=False) as columns:
            return [columns[name].astype(np.int64) for name in names]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        message = f"{path}: {error}"
        raise IndexRefused(message) from error


def _changed(ids: Ids, *, gone: Ids, new: Ids) -> Ids:
    """Return these ids without some and with others, all ascending. New ids mostly lie above all others."""
    highest = ids[-1] if len(ids) else -1
    if len(gone) and gone[0] <= highest:
        ids = ids[~np.isin(ids, gone)]
    if not len(new):
        return ids
    return np.concatenate([ids, new]) if new[0] > highest else np.union1d(ids, new)


def _grown(column: Any, n: int) -> Any:
    """Return the same with room for `n` and an eighth more; what lies behind is not set."""
    room = np.empty(n + n // 8, dtype=column.dtype)
    room[: len(column)] = column
    return room


def _check_columns(ids: Ids, codes: Codes, *, n_groups: int, path: Path) -> None:
    ascending: Any = np.all(ids[1:] > ids[:-1])
    in_range: Any = not len(codes) or (codes.min() >= 0 and codes.max() < n_groups)
    if len(ids) != len(codes) or not ascending or not in_range:
        message = f"{path}: its columns do not fit each other"
        raise IndexRefused(message)
