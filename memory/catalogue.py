"""Which memories are in the index, and the namespace and type of each: the filters' side of it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import IndexRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.int32]

Group = tuple[str, str]
"""(namespace, memory type)"""


class Catalogue:
    """Two parallel columns sorted by id: 12 bytes a memory. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._ids: Ids = np.empty(0, dtype=np.int64)
        self._codes: Codes = np.empty(0, dtype=np.int32)
        self._groups: list[Group] = []
        self._code_of: dict[Group, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Ids:
        """Return every id, ascending."""
        return self._ids

    def put(self, ids: Sequence[int], groups: Sequence[Group]) -> None:
        """Set the group of distinct ids, new or known."""
        if not len(ids):
            return
        new_ids = np.asarray(ids, dtype=np.int64)
        order = np.argsort(new_ids)
        new_ids = new_ids[order]
        new_codes = np.asarray([self._code(group) for group in groups], dtype=np.int32)[order]
        if not len(self._ids) or new_ids[0] > self._ids[-1]:
            self._ids = np.concatenate([self._ids, new_ids])
            self._codes = np.concatenate([self._codes, new_codes])
            return
        self.drop(ids)
        places = np.searchsorted(self._ids, new_ids)
        self._ids = np.insert(self._ids, places, new_ids)
        self._codes = np.insert(self._codes, places, new_codes)

    def drop(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are no error."""
        keep = ~np.isin(self._ids, np.asarray(ids, dtype=np.int64))
        if not keep.all():
            self._ids, self._codes = self._ids[keep], self._codes[keep]

    def select(self, *, namespace: str, memory_types: Iterable[str] | None) -> Ids:
        """Return the ids of a namespace, only of these types if given, ascending."""
        wanted = set(memory_types) if memory_types is not None else None
        codes = [
            code
            for (ns, kind), code in self._code_of.items()
            if ns == namespace and (wanted is None or kind in wanted)
        ]
        if not codes:
            return self._ids[:0]
        return self._ids[np.isin(self._codes, codes)]

    def save(self, path: Path) -> list[Group]:
        """Write the columns to `path` (.npz); return the groups, in the order of their codes."""
        with path.open("wb") as file:
            np.savez(file, ids=self._ids, codes=self._codes)
        return list(self._groups)

    @classmethod
    def load(cls, path: Path, groups: Sequence[Sequence[str]]) -> Catalogue:
        """Read what `save` wrote.

        Raises:
            IndexRefused: the file and the groups do not fit each other.

        """
        try:
            with np.load(path, allow_pickle=False) as columns:
                ids, codes = columns["ids"], columns["codes"]
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
            message = f"{path}: {error}"
            raise IndexRefused(message) from error
        catalogue = cls()
        catalogue._ids, catalogue._codes = ids.astype(np.int64), codes.astype(np.int32)
        for namespace, memory_type in groups:
            catalogue._code((namespace, memory_type))
        _check_columns(catalogue._ids, catalogue._codes, n_groups=len(groups), path=path)
        return catalogue

    def _code(self, group: Group) -> int:
        if group not in self._code_of:
            self._code_of[group] = len(self._groups)
            self._groups.append(group)
        return self._code_of[group]


def _check_columns(ids: Ids, codes: Codes, *, n_groups: int, path: Path) -> None:
    ascending: Any = np.all(ids[1:] > ids[:-1])
    in_range: Any = not len(codes) or (codes.min() >= 0 and codes.max() < n_groups)
    if len(ids) != len(codes) or not ascending or not in_range:
        message = f"{path}: its columns do not fit each other"
        raise IndexRefused(message)
