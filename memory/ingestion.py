"""Raw memories in, rows and index events out: the step that makes a memory stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory.errors import ServerAway
from memory.models import Seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.embedding import Embedder
    from memory.messages import RawMemory
    from memory.models import MemoryId
    from memory.store.memories import MemoryStore
    from memory.store.rows import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What came of one batch. `seq` is the newest event, `None` where nothing was new."""

    new: dict[Key, MemoryId]
    n_known: int
    seq: Seq | None

    @property
    def n_new(self) -> int:
        """How many memories have a row since this batch."""
        return len(self.new)


class Ingestion:
    """Embeds and stores batches with one model. Running a batch twice stores it once."""

    def __init__(self, *, store: MemoryStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    def store(self, raws: Sequence[RawMemory]) -> Stored:
        """Embed and store what is new, in one transaction with its index events.

        A key that has a row keeps it: the first one wins, a deleted one stays deleted, and neither
        costs a pass through the model.

        Raises:
            InvalidMemory: a vector came out unusable. Nothing was stored.
            ModelMismatch: the database belongs to another model by now. Nothing was stored.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

        """
        first = {raw.key: raw for raw in reversed(raws)}
        known = self._store.known(first)
        new = [raw for key, raw in first.items() if key not in known]
        if not new:
            return Stored(new={}, n_known=len(raws), seq=None)
        embeddings = self._embedder.encode([raw.content for raw in new])
        ids, seq = self._store.insert(new, embeddings, model_fingerprint=self._embedder.fingerprint)
        return Stored(new=ids, n_known=len(raws) - len(ids), seq=seq)

    def check_model(self) -> None:
        """Embed a harmless text, to tell a poisonous text from a broken model.

        Raises:
            ServerAway: the model fails on any text.

        """
        try:
            self._embedder.encode(["Is the model well?"])
        except Exception as error:
            message = f"the model fails on any text: {type(error).__name__}: {error}"
            raise ServerAway(message) from error
