"""What an operator does over HTTP: clean up, erase, count."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api_stub.access import Caller
from api_stub.bodies import (
    CleanupBody,
    CleanupOut,
    EraseIdsBody,
    EraseNamespaceBody,
    EraseSourceBody,
    KeyOut,
    StatsOut,
)
from api_stub.fields import Name
from api_stub.http_api.access import Admin, Anyone, Reader
from api_stub.pipeline_client import PipelineClient
from memory.api_keys import KeyScope
from memory.cleanup import CleanupPolicy
from memory.errors import NotFound
from memory.settings import Settings
from memory.validation import check_types

router = APIRouter(prefix="/v1", tags=["operate"])


@router.post("/cleanup")
def clean_up(request: Request, caller: Reader, body: CleanupBody) -> CleanupOut:
    """Count what is both old and unimportant; with `"dry_run": false` and scope `admin`, forget it."""
    if not body.dry_run:
        caller.need(KeyScope.ADMIN)
    client: PipelineClient = request.app.state.client
    settings: Settings = request.app.state.settings
    policy = CleanupPolicy(
        max_age_days=body.max_age_days,
        min_importance=body.min_importance,
        memory_types=check_types(body.memory_types),
        namespace=caller.namespace_if_bound(body.namespace),
        brake_share=settings.cleanup_brake_share,
        brake_count=settings.cleanup_brake_count,
    )
    report = client.cleanup(policy, dry_run=body.dry_run, force=body.force)
    return CleanupOut.model_validate(report.as_json())


@router.post("/erase")
def erase(
    request: Request, caller: Admin, body: EraseNamespaceBody | EraseSourceBody | EraseIdsBody
) -> dict[str, Any]:
    """Erase memories wherever they are and look again; the answer is the receipt. A dry run counts them."""
    client: PipelineClient = request.app.state.client
    match body:
        case EraseIdsBody():
            _check_own(client, caller, body.ids)
            receipt = client.erase(ids=body.ids, dry_run=body.dry_run)
        case EraseNamespaceBody():
            namespace = caller.namespace(body.namespace)
            receipt = client.erase(namespace=namespace, source=body.source, dry_run=body.dry_run)
        case EraseSourceBody():
            bound = caller.namespace_if_bound(None)
            receipt = client.erase(namespace=bound, source=body.source, dry_run=body.dry_run)
    return receipt.as_json()


@router.get("/key")
def own_key(caller: Anyone) -> KeyOut:
    """Say what this key may do, and where."""
    return KeyOut.model_validate(caller.key.as_json())


@router.get("/stats")
def stats(request: Request, caller: Reader, namespace: Annotated[Name | None, Query()] = None) -> StatsOut:
    """Count the memories of a namespace."""
    client: PipelineClient = request.app.state.client
    name = caller.namespace(namespace)
    counts = client.counts(namespace=name)
    return StatsOut(
        namespace=name,
        stored=counts.stored,
        searchable=counts.searchable,
        pending=counts.pending,
        deleted=counts.deleted,
    )


def _check_own(client: PipelineClient, caller: Caller, ids: list[int]) -> None:
    """Raise NotFound unless all of these are or were the caller's: an erasure may be asked for again."""
    own = caller.key.namespaces
    if own is None:
        return
    there = client.within(ids, own)
    for memory_id in ids:
        if memory_id not in there:
            raise NotFound(f"no memory with id {memory_id}")
