"""Raw memories in, rows and index events out: the step that makes a memory stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memory.embedder import embed_whole
from memory.errors import ServerAway
from memory.failpoints import reach
from memory.models import Seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.embedder import Embedder
    from memory.messages import RawMemory
    from memory.models import MemoryId
    from memory.store.memories import MemoryStore
    from memory.store.pending import Unembedded
    from memory.store.rows import Embeddings, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What came of one batch. `seq` is the newest event, `None` where nothing was new."""

    new: dict[Key, MemoryId]
    n_known: int
    n_embedded: int  # of the known: rows that had waited for their embedding
    seq: Seq | None

    @property
    def n_new(self) -> int:
        """How many memories have a row since this batch."""
        return len(self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch with its embeddings, to be committed."""

    new: Sequence[RawMemory]
    unembedded: Sequence[Unembedded]
    embeddings: Embeddings  # of the new ones, then of the unembedded
    n_memories: int


class Ingestion:
    """Embeds and stores batches with one model. Running a batch twice stores it once."""

    def __init__(self, *, store: MemoryStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    def store(self, raws: Sequence[RawMemory]) -> Stored:
        """Embed and store what is new, in one transaction with its index events.

        A key that has a row keeps it: the first one wins, a deleted one stays deleted, and neither
        costs a pass through the model. A row that waits for its embedding gets it.

        Raises:
            InvalidMemory: a vector came out unusable. Nothing was stored.
            ModelMismatch: the database belongs to another model by now. Nothing was stored.
            ServerAway: the database cannot be reached. Nothing was stored, or all of it.

        """
        return self.commit(self.prepare(raws))

    def prepare(self, raws: Sequence[RawMemory]) -> Prepared:
        """Do the first half of `store`: embed what is new, and store nothing."""
        first = {raw.key: raw for raw in reversed(raws)}
        known = self._store.known(first)
        new = [raw for key, raw in first.items() if key not in known]
        left = [unembedded for unembedded in known.values() if unembedded]
        texts = [raw.content for raw in new] + [unembedded.content for unembedded in left]
        embeddings = embed_whole(self._embedder, texts)
        reach("embed.embedded")
        return Prepared(new=new, unembedded=left, embeddings=embeddings, n_memories=len(raws))

    def commit(self, prepared: Prepared) -> Stored:
        """Do the second half of `store`. What got a row since the first half keeps that."""
        n, left = prepared.n_memories, prepared.unembedded
        if not prepared.new and not left:
            return Stored(new={}, n_known=n, n_embedded=0, seq=None)
        ids, seq = self._store.insert(
            prepared.new,
            prepared.embeddings,
            model_fingerprint=self._embedder.fingerprint,
            unembedded=left,
        )
        return Stored(new=ids, n_known=n - len(ids), n_embedded=len(left), seq=seq)

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
