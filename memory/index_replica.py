"""The index in memory, shared between its one owner, who changes it, and the searches, who read it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from memory.models import MemoryId, Seq
from memory.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from memory.catalogue import Group
    from memory.models import MemoryType


class IndexReplica:
    """Vectors and catalogue as of `applied_seq`. Changed by one thread, searched by any number."""

    def __init__(self, content: Snapshot) -> None:
        self._content = content
        self._changed = threading.Condition()

    @property
    def applied_seq(self) -> Seq:
        """Every change up to this event is in the index."""
        return self._content.applied_seq

    @property
    def content(self) -> Snapshot:
        """The index itself, for its owner: saving it beside searches is safe, changing it is not."""
        return self._content

    def search(
        self,
        query: npt.NDArray[np.float32],
        *,
        namespace: str,
        memory_types: Sequence[MemoryType] | None,
        k: int,
        min_score: float,
    ) -> list[tuple[MemoryId, float]]:
        """Return the `k` nearest (id, cosine) of a namespace and these types, best first."""
        with self._changed:
            among = self._content.catalogue.select(namespace=namespace, memory_types=memory_types)
            hits = self._content.index.search(query, k=k, min_score=min_score, among=among)
        return [(MemoryId(i), score) for i, score in hits]

    def scores(self, query: npt.NDArray[np.float32], *, ids: Sequence[MemoryId]) -> dict[MemoryId, float]:
        """Return the cosine of the query and each of `ids` that is in the index."""
        with self._changed:
            present = np.intersect1d(np.asarray(ids, dtype=np.int64), self._content.catalogue.ids())
            hits = self._content.index.search(query, k=max(1, len(present)), min_score=-1.0, among=present)
        return {MemoryId(i): score for i, score in hits}

    def wait_until(self, seq: Seq, *, timeout_s: float) -> bool:
        """Wait until every change up to `seq` is applied; return whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._content.applied_seq >= seq, timeout=timeout_s)

    def change(
        self,
        *,
        removed: Sequence[MemoryId],
        added: Sequence[MemoryId],
        groups: Sequence[Group],
        vectors: npt.NDArray[np.float32],
        seq: Seq,
    ) -> None:
        """Apply changes up to `seq`: an added id that is there already is replaced.

        `vectors` is float32 (len(added), d), rows of length 1; `groups` stand in the same order.
        """
        with self._changed:
            index, catalogue = self._content.index, self._content.catalogue
            index.remove(removed)
            catalogue.drop(removed)
            index.add_embeddings(vectors, added)
            catalogue.put(added, groups)
            self._content = Snapshot(index=index, catalogue=catalogue, applied_seq=seq)
            self._changed.notify_all()

    def replace(self, content: Snapshot) -> None:
        """Switch to another index at once."""
        with self._changed:
            self._content = content
            self._changed.notify_all()
