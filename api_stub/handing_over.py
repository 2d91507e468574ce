"""Handing memories over for somebody else, and telling what became of them: the same over HTTP and MCP."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from api_stub.bodies import CountsOut, ItemOut, OperationOut, RejectedOut
from memory.errors import NothingAccepted, Recoverable
from memory.models import MemoryState, Outcome
from memory.operations import Operation, new_operation, new_operation_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api_stub.client import MemoryClient
    from memory.models import Receipt

log = structlog.get_logger(__name__)

_MOST_RECENT = 10_000
_STAYS_GONE = "it was deleted, and stays gone under this uid"
_TWICE = "uid: must be another one for each memory of a request"


class KeepsOperations(Protocol):
    """Where operations are kept, so that they can be asked after."""

    def save(self, operation: Operation) -> None: ...  # noqa: D102
    def get(self, operation_id: str) -> Operation | None: ...  # noqa: D102


class RecentOperations:
    """The last operations of this process, which forgets them when it ends."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Operation] = OrderedDict()
        self._lock = threading.Lock()

    def save(self, operation: Operation) -> None:
        """Keep an operation."""
        with self._lock:
            self._kept[operation.id] = operation
            while len(self._kept) > _MOST_RECENT:
                self._kept.popitem(last=False)

    def get(self, operation_id: str) -> Operation | None:
        """Return an operation, `None` for one that is unknown, or forgotten by now."""
        with self._lock:
            return self._kept.get(operation_id)


def hand_over(
    client: MemoryClient,
    drafts: Sequence[dict[str, Any]],
    *,
    namespace: str,
    operation_id: str | None = None,
) -> Operation:
    """Enqueue memories of one namespace, a single one ahead of everything that waits.

    Args:
        client: who takes them.
        drafts: the arguments of `MemoryClient.enqueue` of each. One without a uid gets one from the
            operation's id and its place: the same operation again hands over nothing twice.
        namespace: whose.
        operation_id: a new one where absent.

    Raises:
        InvalidMemory: the only one was refused.
        NothingAccepted: all of several were refused.
        Recoverable: nothing was accepted.

    """
    operation = new_operation(operation_id or new_operation_id(), namespace=namespace)
    whole = [
        {**draft, "namespace": namespace, "uid": draft.get("uid") or f"{operation.id}:{place}"}
        for place, draft in enumerate(drafts)
    ]
    if len(whole) == 1:
        return replace(operation, uids=(client.enqueue(**whole[0]).uid,))
    first = {draft["uid"]: place for place, draft in reversed(list(enumerate(whole)))}
    places = sorted(first.values())
    enqueued = client.enqueue_many([whole[place] for place in places], patience_s=0)
    if not enqueued.receipts:
        raise NothingAccepted({places[one.position]: one.reason for one in enqueued.rejected})
    rejected = dict.fromkeys(set(range(len(whole))) - set(places), _TWICE)
    rejected |= {places[one.position]: one.rule for one in enqueued.rejected}
    return replace(
        operation,
        uids=tuple(receipt.uid for receipt in enqueued.receipts),
        rejected=tuple(sorted(rejected.items())),
    )


def keep(operations: KeepsOperations, operation: Operation) -> None:
    """Keep an operation, so that it can be asked after. Where that fails, it is accepted all the same.

    An error would make its caller hand it over again.
    """
    try:
        operations.save(operation)
    except Recoverable as error:
        log.warning("operation_not_kept", operation=operation.id, reason=str(error))


def operation_on(receipt: Receipt) -> Operation:
    """Return the operation of a change to one stored memory."""
    operation = new_operation(new_operation_id(), namespace=receipt.namespace)
    return replace(operation, uids=(receipt.uid,))


def report_accepted(operation: Operation) -> OperationOut:
    """Say that all was accepted, where nobody can be asked how far it is."""
    accepted = [Outcome(receipt=one, state=MemoryState.ACCEPTED) for one in operation.receipts]
    return report(operation, accepted)


def report(operation: Operation, outcomes: Sequence[Outcome]) -> OperationOut:
    """Say how far an operation has come."""
    counts = Counter(outcome.state.value for outcome in outcomes)
    n_bad = counts[MemoryState.DEAD] + counts[MemoryState.DELETED] + len(operation.rejected)
    if not all(outcome.settled for outcome in outcomes):
        status = "running"
    elif not n_bad:
        status = "succeeded"
    else:
        status = "partly" if n_bad < len(outcomes) + len(operation.rejected) else "failed"
    return OperationOut(
        id=operation.id,
        namespace=operation.namespace,
        status=status,
        counts=CountsOut(**counts, rejected=len(operation.rejected)),
        seq=max((outcome.seq for outcome in outcomes if outcome.seq is not None), default=None),
        memories=[item(outcome) for outcome in outcomes],
        rejected=[RejectedOut(position=place, reason=reason) for place, reason in operation.rejected],
        created_at=operation.created_at,
    )


def item(outcome: Outcome) -> ItemOut:
    """Say how far one memory has come."""
    return ItemOut(
        uid=outcome.receipt.uid,
        state=outcome.state,
        id=outcome.id,
        seq=outcome.seq,
        reason=_STAYS_GONE if outcome.state is MemoryState.DELETED else outcome.reason,
    )
