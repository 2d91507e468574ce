"""The indexer's tasks: wake the owner, answer a search, audit and repair, let go of what was erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory.broker import TaskName
from memory.errors import MemorySystemError
from memory.search_request import SearchRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from indexer.audits import Audits
    from indexer.owner import IndexOwner
    from memory.audit import Audit, Pace
    from memory.index_sync import IndexSync
    from memory.repair import Repair
    from memory.replies import Replies
    from memory.search import Searcher

Answer = dict[str, Any]
"""`{"ok": true, …}`, or `{"ok": false, "error": name of the class, "message": text}`."""

_AUDIT_TIMEOUT_S = 3600
_LET_GO_TIMEOUT_S = 600


def register(
    app: Celery,
    *,
    owner: IndexOwner,
    sync: IndexSync,
    audits: Audits,
    searcher: Searcher,
    replies: Replies,
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
        """Audit the index and all it is made of. At most once: the client asks again."""
        replies.give(address, _audited(owner, audits.audit))

    def repair(address: str) -> None:
        """Mend what an audit finds. At most once, and again is harmless."""
        replies.give(address, _audited(owner, audits.repair))

    def erased(address: str) -> None:
        """Let go of all that is not live, and count what is left. At most once: the client asks again."""
        try:
            traces = owner.call(
                lambda: sync.let_go(on_progress=owner.pace.on_progress), timeout_s=_LET_GO_TIMEOUT_S
            )
            answer: Answer = {"ok": True, "traces": traces.as_json()}
        except MemorySystemError as error:
            answer = _refusal(error)
        replies.give(address, answer)

    app.task(apply, name=TaskName.APPLY.value)
    app.task(search, name=TaskName.SEARCH.value, acks_late=False)
    app.task(compare, name=TaskName.COMPARE.value, acks_late=False)
    app.task(repair, name=TaskName.REPAIR.value, acks_late=False)
    app.task(erased, name=TaskName.ERASED.value, acks_late=False)


def _audited(owner: IndexOwner, run: Callable[[Pace], Audit | Repair]) -> Answer:
    try:
        return {
            "ok": True,
            "audit": owner.call(lambda: run(owner.pace), timeout_s=_AUDIT_TIMEOUT_S).as_json(),
        }
    except MemorySystemError as error:
        return _refusal(error)


def _refusal(error: MemorySystemError) -> Answer:
    return {"ok": False, "error": type(error).__name__, "message": str(error)}
