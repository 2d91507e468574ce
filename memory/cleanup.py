"""Forgets what is both old and unimportant: in batches, through the outbox, with a brake."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from memory.errors import CleanupBraked
from memory.store.forgetting import Forgetting, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.database import Database
    from memory.models import MemoryType

BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupPolicy:
    """What is forgotten: older than `max_age_days` and less important than `min_importance`.

    Age counts from the last recall, else from creation, by the database's clock. A memory without an
    importance counts as 0.5. The brake stops a run before it removes more than `brake_share` of a
    namespace and more than `brake_count` memories of it.
    """

    max_age_days: float = 30
    min_importance: float = 0.3
    memory_types: tuple[MemoryType, ...] | None = None
    namespace: str | None = None
    brake_share: float = 0.2
    brake_count: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """What a run found and did. `skipped` were found and kept: dry run, changed meanwhile, or stopped early.

    `stopped_early` says that the run was told to stop before it was through: another run does the rest.
    """

    total_found: int
    deleted: int
    skipped: int
    dry_run: bool
    stopped_early: bool = False
    by_namespace: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def clean_up(
    database: Database,
    policy: CleanupPolicy,
    *,
    dry_run: bool,
    force: bool = False,
    on_progress: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CleanupReport:
    """Forget what the policy says, or with `dry_run` count it by the very same query.

    Killed between two batches, what is done is done, and the next run does the rest. A part of a run
    never makes the brake stop the next one: what is left is a smaller share of the namespace.

    Args:
        database: whose memories.
        policy: what is old and unimportant.
        dry_run: only count.
        force: past the brake.
        on_progress: called after each batch of at most `BATCH` memories.
        should_stop: asked after each batch, so that every run gets somewhere.

    Raises:
        CleanupBraked: it would remove suspiciously much, and `force` is not set. Nothing was removed.
        ServerAway: the database cannot be reached.

    """
    forgetting = Forgetting(database)
    rule = Rule(
        max_age=timedelta(days=policy.max_age_days),
        min_importance=policy.min_importance,
        memory_types=policy.memory_types,
        namespace=policy.namespace,
    )
    found = forgetting.count(rule)
    total = sum(found.values())
    if not force:
        _check_brake(forgetting, found, policy)
    deleted = 0
    stopped_early = False
    # Bounded by what the brake saw: rows that became old since wait for the next run.
    while not dry_run and deleted < total and not stopped_early:
        n = forgetting.forget(rule, limit=min(BATCH, total - deleted))
        if not n:
            break
        deleted += n
        on_progress()
        stopped_early = deleted < total and should_stop()
    return CleanupReport(
        total_found=total,
        deleted=deleted,
        skipped=total - deleted,
        dry_run=dry_run,
        stopped_early=stopped_early,
        by_namespace=dict(found),
    )


def _check_brake(forgetting: Forgetting, found: Counter[str], policy: CleanupPolicy) -> None:
    for namespace, n in found.items():
        if n <= policy.brake_count:
            continue
        live = forgetting.n_live(namespace)
        if n > policy.brake_share * live:
            message = (
                f"cleanup would remove {n} of the {live} memories of namespace {namespace!r}, more than "
                f"{policy.brake_share:.0%} and more than {policy.brake_count}: nothing was removed; "
                "run it with force if that is meant"
            )
            raise CleanupBraked(message)
