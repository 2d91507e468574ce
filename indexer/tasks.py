"""The indexer's tasks: wake the owner, answer a search, compare index and database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory.broker import TaskName
from memory.errors import MemorySystemError
from memory.models import SearchRequest

if TYPE_CHECKING:
    from celery import Celery

    from indexer.owner import IndexOwner
    from memory.index_sync import IndexSync
    from memory.replies import Replies
    from memory.search import Searcher

Answer = dict[str, Any]
"""`{"ok": true, …}`, or `{"ok": false, "error": name of the class, "message": text}`."""

_COMPARE_TIMEOUT_S = 600


def register(
    app: Celery, *, owner: IndexOwner, sync: IndexSync, searcher: Searcher, replies: Replies
) -> None:
    """Register the tasks on `app`."""

    def apply() -> None:
        """Wake the owner. At most once: lost, the next tick does the same."""
        owner.wake()

    def search(request: dict[str, Any], wait_s: float, address: str) -> None:
        """Answer a search. At most once: the client asks again."""
        try:
            hits = searcher.search(SearchRequest.from_json(request), wait_s=wait_s)
            answer: Answer = {"ok": True, "hits": [hit.as_json() for hit in hits]}
        except MemorySystemError as error:
            answer = _refusal(error)
        replies.give(address, answer)

    def compare(address: str) -> None:
        """Compare the index with the database. At most once: the client asks again."""
        try:
            comparison = owner.call(sync.compare, timeout_s=_COMPARE_TIMEOUT_S)
            answer: Answer = {"ok": True, "comparison": comparison.as_json()}
        except MemorySystemError as error:
            answer = _refusal(error)
        replies.give(address, answer)

    app.task(apply, name=TaskName.APPLY.value)
    app.task(search, name=TaskName.SEARCH.value, acks_late=False)
    app.task(compare, name=TaskName.COMPARE.value, acks_late=False)


def _refusal(error: MemorySystemError) -> Answer:
    return {"ok": False, "error": type(error).__name__, "message": str(error)}
