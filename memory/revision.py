"""Changes a stored memory: its new content is embedded, its id and key stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memory.embedder import embed_whole
from memory.messages import raw_memory
from memory.store.memories import Embedded
from memory.validation import MAX_CONTENT_BYTES, check_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory.embedder import Embedder
    from memory.messages import RawMemory
    from memory.models import Memory, MemoryId, Metadata
    from memory.store.memories import MemoryStore


class Revision:
    """Revises memories with one model, or, with none, leaves a new content to be embedded by the pipeline."""

    def __init__(self, *, store: MemoryStore, embedder: Embedder | None, max_content_bytes: int) -> None:
        self._store = store
        self._embedder = embedder
        self._max_content_bytes = max_content_bytes

    def revise(
        self,
        memory_id: MemoryId,
        *,
        content: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        memory_type: str | None = None,
        source: str | None = None,
    ) -> Memory:
        """Change what is given, leave the rest; return the memory as it is then.

        Of two revisions at once both take effect, one after the other.

        Args:
            memory_id: a live memory.
            content: its new text, which is embedded if it differs.
            metadata: merged into what is there as by RFC 7396: given keys are set, `None` removes one.
            memory_type: its new type.
            source: its new source.

        Raises:
            NotFound: there is no such live memory.
            InvalidMemory: names the field, its value and what is allowed. Nothing was changed.
            ModelMismatch: the database belongs to another model by now. Nothing was changed.
            ServerAway: the database cannot be reached. Nothing was changed, or all of it.

        """
        embedding: Embedded | None = None
        while True:
            old = self._store.get(memory_id)
            new = self._revised(
                old, content=content, metadata=metadata, memory_type=memory_type, source=source
            )
            if _says_the_same(old, new):
                return old
            is_reworded = new.content != old.content
            if is_reworded and embedding is None and self._embedder is not None:
                embedding = Embedded(
                    vectors=embed_whole(self._embedder, [new.content])[0],
                    model_fingerprint=self._embedder.fingerprint,
                )
            replaced = self._store.replace(old, new, embedding=embedding if is_reworded else None)
            if replaced is not None:  # else it changed since it was read: look again
                return replaced[0]

    def _revised(
        self,
        old: Memory,
        *,
        content: str | None,
        metadata: Mapping[str, Any] | None,
        memory_type: str | None,
        source: str | None,
    ) -> RawMemory:
        patch = check_metadata(metadata)
        return raw_memory(
            old.content if content is None else content,
            # What was accepted under a larger bound stays acceptable.
            max_content_bytes=MAX_CONTENT_BYTES if content is None else self._max_content_bytes,
            memory_type=old.memory_type if memory_type is None else memory_type,
            source=old.source if source is None else source,
            metadata=merged(old.metadata, patch),
            uid=old.uid,
            namespace=old.namespace,
            created_at=old.created_at,
        )


def merged(target: Any, patch: Any) -> Any:
    """Return `target` changed by a JSON merge patch (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _says_the_same(old: Memory, new: RawMemory) -> bool:
    texts = (old.content, old.memory_type, old.source) == (new.content, new.memory_type, new.source)
    return texts and _canonical(old.metadata) == _canonical(new.metadata)


def _canonical(metadata: Metadata) -> str:
    return json.dumps(metadata, sort_keys=True)  # in Python, unlike in JSON, true equals 1
