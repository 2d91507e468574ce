"""Which memories are to be erased, and whether a label says that it is one of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memory.errors import InvalidMemory
from memory.models import MemoryId
from memory.validation import check_id, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from memory.messages import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Those of these ids, or those of a namespace, of a source, or of both. Make one with `selector`."""

    namespace: str | None
    source: str | None
    ids: tuple[MemoryId, ...]  # ascending

    def takes(self, label: Label, *, keys: Set[tuple[str, str]]) -> bool:
        """Whether the memory of this label is chosen; `keys` are those of the chosen ids."""
        if self.ids:
            return label.key in keys
        return self.namespace in {None, label.namespace} and self.source in {None, label.source}

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def selector(
    *, namespace: str | None = None, source: str | None = None, ids: Iterable[int] | None = None
) -> Selector:
    """Check what is asked for: ids alone, or a namespace, a source or both. Never simply everything.

    Raises:
        InvalidMemory: names what is wrong.

    """
    chosen = sorted({check_id("id", i) for i in ids or ()})
    named = namespace is not None or source is not None
    if chosen and named:
        raise InvalidMemory(field="id", value=chosen, allowed="alone: without a namespace and a source")
    if not chosen and not named:
        raise InvalidMemory(field="selector", value=None, allowed="a namespace, a source, or ids")
    return Selector(
        namespace=None if namespace is None else check_name("namespace", namespace),
        source=None if source is None else check_name("source", source),
        ids=tuple(chosen),
    )
