"""The index in memory, shared between its one owner, who changes it, and the searches, who read it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from memory.faiss_index import threads
from memory.models import MemoryId, SearchMode, Seq
from memory.relevance import Query, Scope, Scored, ranked, scored
from memory.shared_lock import SharedLock
from memory.snapshot import Snapshot
from memory.window_index import Parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from memory.catalogue import Group
    from memory.postings import Text


_AT_ONCE = 64  # vectors for which searches wait: where each fills a list up, these take some 20 ms


class IndexReplica:
    """Vectors and catalogue as of `applied_seq`. Changed by one thread, searched by any number.

    Searches run beside each other, and wait for a part of a change at most, never for all of a long one.
    Searches and changes take one core each: more threads of FAISS would mostly wait for each other.

    Args:
        content: the index.
        model_fingerprint: the model of its vectors.

    """

    def __init__(self, content: Snapshot, *, model_fingerprint: str) -> None:
        self.model_fingerprint = model_fingerprint
        self._content = content
        self._lock = SharedLock()
        self._changed = threading.Condition()

    @property
    def applied_seq(self) -> Seq:
        """Every change up to this event is in the index."""
        return self._content.applied_seq

    @property
    def slack(self) -> float:
        """How far a cosine may be off, for now; 0 where none is."""
        return self._content.slack

    @property
    def content(self) -> Snapshot:
        """The index itself, for its owner: saving it beside searches is safe, changing it is not."""
        return self._content

    def query(self, text: str, vector: npt.NDArray[np.float32]) -> Query:
        """Return a query as this index takes it."""
        return Query(vector=vector, terms=self._content.words.analyzer.query_terms(text))

    def search(self, query: Query, scope: Scope, *, mode: SearchMode, k: int) -> Scored:
        """Return the `k` most relevant of a scope, best first, ties by id."""
        with threads(1), self._lock.shared():
            return ranked(self._content, query, scope, mode=mode, k=k)

    def scored(self, query: Query, *, namespace: str, ids: Sequence[MemoryId], mode: SearchMode) -> Scored:
        """Return those of these memories of a namespace that are in the index, best first, ties by id."""
        with threads(1), self._lock.shared():
            present = self._content.catalogue.present(ids)
            return scored(self._content, query, present, namespace=namespace, mode=mode)

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
        counts: npt.NDArray[np.int64] | None = None,
        texts: Sequence[Text],
    ) -> None:
        """Apply changes up to `seq`: removals first, `applied_seq` last.

        An added id that is there already is replaced. A search sees the change of one memory whole, but for
        one that is replaced: for some milliseconds it has its new words, and its old vector.

        Args:
            removed: ids; one that is not there is no error.
            added: distinct ids.
            groups: of the added, in their order.
            vectors: float32 (w, d), rows of length 1: the windows of the added, in their order.
            seq: the last event.
            counts: int64 (len(added),), how many windows each has; one where absent.
            texts: of the added.

        """
        if counts is None:
            counts = np.ones(len(added), dtype=np.int64)
        content, parts = self._content, Parts.of(vectors, counts)
        with threads(1):
            # Most of the work, and beside it searches go on.
            lists, further_lists = content.index.lists(parts.firsts), content.windows.lists(parts.further)
            words = content.words.change(removed=removed, texts=texts)
            for some in _portions(counts):
                with self._lock.alone():
                    if some.start == 0:
                        content.index.remove(removed)
                        content.windows.drop(removed)
                        content.catalogue.drop(removed)
                        content.words.take(words)
                    ids, their_groups = added[some], groups[some]
                    content.index.add_embeddings(
                        parts.firsts[some], ids, lists=None if lists is None else lists[some]
                    )
                    content.catalogue.put(ids, their_groups)
                    content.windows.drop(ids)
                    content.windows.put(ids, their_groups, parts, some=some, lists=further_lists)
                    if some.stop >= len(added):
                        self._content = replace(content, applied_seq=seq)
        self._tell()

    def compact(self) -> None:
        """Let go of the last trace of what was removed."""
        with self._lock.alone():
            self._content.words.compact()

    def replace(self, content: Snapshot) -> None:
        """Switch to another index at once."""
        with self._lock.alone():
            self._content = content
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _portions(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield which memories to add at once: of so many windows together, or a single one; at least once."""
    start, n = 0, 0
    for place, count in enumerate(counts.tolist()):
        if n and n + count > _AT_ONCE:
            yield slice(start, place)
            start, n = place, 0
        n += count
    yield slice(start, len(counts))
