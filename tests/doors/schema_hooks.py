"""What a generated request cannot know from the schema alone."""

from __future__ import annotations

import uuid
from typing import Any

import schemathesis

_LARGEST = 2**63 - 1
_WAIT_S, _LONGEST_WAIT_S = 0.2, 30


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Let it keep two rules that JSON Schema has no words for, or only at great length, and not wait long.

    An idempotency key is of one request; and numbers inside metadata, at any depth, are within 64 bits. What
    it waits for mostly never comes: hundreds of waits that are allowed would take hours.
    """
    for name, value in list((case.headers or {}).items()):
        if name.lower() == "idempotency-key" and isinstance(value, str) and 0 < len(value) <= 200:
            case.headers[name] = uuid.uuid4().hex
    body = case.body if isinstance(case.body, dict) else {}
    if isinstance(wait_s := body.get("wait_s"), int | float) and _WAIT_S < wait_s <= _LONGEST_WAIT_S:
        body["wait_s"] = _WAIT_S
    drafts = body.get("memories")
    for draft in [body, *(drafts if isinstance(drafts, list) else [])]:
        if isinstance(draft, dict) and isinstance(draft.get("metadata"), dict):
            draft["metadata"] = _bounded(draft["metadata"])


def _bounded(value: Any) -> Any:
    match value:
        case dict():
            return {name: _bounded(inner) for name, inner in value.items()}
        case list():
            return [_bounded(inner) for inner in value]
        case int() | float() if abs(value) > _LARGEST:
            return _LARGEST
    return value
