"""The further windows of long memories, behind the first one, which is in the index under the memory's id."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memory.catalogue import Catalogue, read_columns
from memory.errors import IndexRefused
from memory.faiss_index import FAISSIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from memory.catalogue import Group, Ids
    from memory.faiss_forms.form import Lists, Vectors

_GONE = -1


class Parts(NamedTuple):
    """The vectors of some memories: the first window of each, and what is behind it."""

    firsts: Vectors
    """float32 (n, d)"""
    further: Vectors
    """float32 (m, d): memory after memory"""
    bounds: Ids
    """int64 (n + 1,): those of the i-th memory are `further[bounds[i]:bounds[i + 1]]`"""

    @classmethod
    def of(cls, vectors: Vectors, counts: Ids) -> Parts:
        """Take apart float32 (w, d), the windows of memory after memory; `counts` says how many each has."""
        if len(vectors) == len(counts):
            return cls(vectors, vectors[:0], np.zeros(len(counts) + 1, dtype=np.int64))
        begins = np.cumsum(counts) - counts
        is_further = np.ones(len(vectors), dtype=bool)
        is_further[begins] = False
        return cls(vectors[begins], vectors[is_further], np.append(0, np.cumsum(counts - 1)))


class WindowIndex:
    """Vectors under numbers of their own, given out in ascending order, each owned by a memory.

    Not thread-safe by itself: a change must not run beside anything else. Searches, `lists` and `save` may.
    Numbers of what is gone are not given out again: 8 bytes each, until the index is made anew.

    Args:
        index: an empty one, for the vectors.

    """

    def __init__(self, index: FAISSIndex) -> None:
        self._index = index
        self._catalogue = Catalogue()  # of numbers
        self._owners: Ids = np.empty(0, dtype=np.int64)  # by number, with room behind
        self._n = 0  # numbers given out
        self._first: dict[int, int] = {}  # by owner: the first number of several in a row

    def __len__(self) -> int:
        return len(self._index)

    @property
    def slack(self) -> float:
        """How far a score may be from the cosine."""
        return self._index.slack

    def outgrown(self, *, exact_up_to: int) -> bool:
        """Return whether it holds more than its form is good for."""
        return self._index.outgrown(exact_up_to=exact_up_to)

    def owners(self) -> Ids:
        """Return the id of every memory that has further windows, ascending."""
        return np.sort(np.fromiter(self._first, dtype=np.int64, count=len(self._first)))

    def lists(self, vectors: Vectors) -> Lists | None:
        """Return, for `put`, where these vectors belong; `None` where that is all the same."""
        return self._index.lists(vectors) if len(vectors) else None

    def put(
        self,
        ids: Sequence[int] | Ids,
        groups: Sequence[Group],
        parts: Parts,
        *,
        some: slice = slice(None),
        lists: Lists | None = None,
    ) -> None:
        """Add the further windows of memories that have none here.

        Args:
            ids: the memories.
            groups: of each memory.
            parts: vectors of these memories.
            some: which memories of `parts` they are; all where absent.
            lists: what `lists` gave for all of `parts.further`.

        """
        begin, end, _ = some.indices(len(parts.firsts))
        counts = np.diff(parts.bounds[begin : end + 1])
        taken = slice(parts.bounds[begin], parts.bounds[end])
        owners = np.repeat(np.asarray(ids, dtype=np.int64), counts)
        if not len(owners):
            return
        numbers = np.arange(self._n, self._n + len(owners))
        if numbers[-1] >= len(self._owners):
            grown = np.empty(len(self._owners) + len(self._owners) // 8 + len(owners), dtype=np.int64)
            grown[: self._n] = self._owners[: self._n]
            self._owners = grown
        few = None if lists is None else lists[taken]
        self._index.add_embeddings(parts.further[taken], numbers, lists=few)
        owned = zip(groups, counts.tolist(), strict=True)
        self._catalogue.put(numbers, [group for group, n in owned for _ in range(n)])
        self._owners[numbers] = owners
        self._n += len(owners)
        self._note_firsts(numbers)

    def drop(self, owners: Iterable[int]) -> None:
        """Remove the vectors of these memories; it is no error if one has none."""
        if not self._first:
            return
        gone = [self._numbers(owner) for owner in owners if owner in self._first]
        if not gone:
            return
        numbers = np.concatenate(gone)
        for owner in self._owners[numbers].tolist():
            self._first.pop(owner, None)
        self._index.remove(numbers)
        self._catalogue.drop(numbers)
        self._owners[numbers] = _GONE

    def search(
        self,
        query: Vectors,
        *,
        namespace: str,
        memory_types: Iterable[str] | None,
        k: int,
        min_score: float,
    ) -> list[tuple[int, float]]:
        """Return the `k` memories of a namespace and these types that have the nearest window, best first.

        `query` is float32 (d,), length 1; each memory comes once, with the score of its nearest window.
        """
        if not len(self):
            return []
        among = self._catalogue.choose(namespace=namespace, memory_types=memory_types)
        n = len(self) if among is None else len(among)
        asked = 2 * k
        while True:
            hits = self._index.search(query, k=asked, min_score=min_score, among=among)
            found = self._of_owners(hits)
            if len(found) >= k or len(hits) < asked or asked >= n:
                return found[:k]
            asked *= 4

    def scores(self, query: Vectors, *, ids: Iterable[int]) -> list[tuple[int, float]]:
        """Return those of these memories that have further windows, with the score of the nearest one."""
        numbers = [self._numbers(i) for i in ids if i in self._first]
        if not numbers:
            return []
        among = np.sort(np.concatenate(numbers))
        return self._of_owners(
            self._index.search(query, k=len(among), min_score=-1.0 - self.slack, among=among)
        )

    def agree(self, ids: Ids, parts: Parts) -> npt.NDArray[np.bool_]:
        """Return bool (n,): whether what is kept of each memory is what its further windows become here."""
        same = np.zeros(len(ids), dtype=bool)
        for place, memory_id in enumerate(ids.tolist()):
            expected = parts.further[parts.bounds[place] : parts.bounds[place + 1]]
            kept = self._numbers(memory_id)
            same[place] = len(kept) == len(expected) and bool(self._index.agree(kept, expected).all())
        return same

    def save(self, vectors: Path, owners: Path) -> None:
        """Write it to two files, one of FAISS and one with columns (.npz); only the first one is flushed.

        Raises:
            OSError: the disk did not take it.

        """
        numbers = self._catalogue.ids()
        self._index.save(vectors)
        with owners.open("wb") as file:
            np.savez(file, numbers=numbers, owners=self._owners[numbers])

    @classmethod
    def load(cls, vectors: Path, owners: Path, *, catalogue: Catalogue, use_gpu: bool = False) -> WindowIndex:
        """Read what `save` wrote; the namespace and type of each memory are in the catalogue.

        Raises:
            IndexRefused: a file cannot be read, or they do not fit each other.

        """
        loaded = cls(FAISSIndex.load(vectors, use_gpu=use_gpu))
        numbers, owned_by = read_owners(owners)
        fitting = len(numbers) == len(owned_by) and np.array_equal(loaded._index.ids(), numbers)
        if not fitting or len(catalogue.present(owned_by)) != len(np.unique(owned_by)):
            message = f"{owners}: its columns do not fit the vectors"
            raise IndexRefused(message)
        loaded._n = int(numbers[-1]) + 1 if len(numbers) else 0
        loaded._owners = np.full(loaded._n, _GONE, dtype=np.int64)
        loaded._owners[numbers] = owned_by
        loaded._catalogue.put(numbers, catalogue.groups_of(owned_by))
        loaded._note_firsts(numbers)
        return loaded

    def _numbers(self, owner: int) -> Ids:
        """Return the numbers of a memory's vectors, in the order of its windows."""
        first = self._first.get(owner)
        if first is None:
            return np.empty(0, dtype=np.int64)
        end = first + 1
        while end < self._n and self._owners[end] == owner:
            end += 1
        return np.arange(first, end)

    def _note_firsts(self, numbers: Ids) -> None:
        """Note where each memory begins in these numbers, ascending, of which each memory's are in a row."""
        owners = self._owners[numbers]
        begins = np.flatnonzero(np.diff(owners, prepend=_GONE))
        self._first.update(zip(owners[begins].tolist(), numbers[begins].tolist(), strict=True))

    def _of_owners(self, hits: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """Return the memories of these windows, best first, each once."""
        found: dict[int, float] = {}
        for number, score in hits:
            found.setdefault(int(self._owners[number]), score)
        return list(found.items())


def read_owners(path: Path) -> tuple[Ids, Ids]:
    """Return the numbers in a file that `WindowIndex.save` wrote, and the memory that owns each.

    Raises:
        IndexRefused: it cannot be read.

    """
    numbers, owners = read_columns(path, "numbers", "owners")
    return numbers, owners
