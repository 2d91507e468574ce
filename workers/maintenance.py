"""The maintenance tick: runs the jobs that the database says are due."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from memory.cleanup import CleanupPolicy, clean_up
from memory.errors import MemorySystemError, ServerAway
from memory.store.jobs import CLEANUP, TICKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.broker import Nudger
    from memory.database import Database
    from memory.pending import Requeuer
    from memory.settings import Settings
    from memory.store.jobs import Jobs

log = structlog.get_logger(__name__)

BUDGET_S = 10.0
"""Longest that one tick forgets, or pushes, but for its last batch. Between two ticks the worker embeds."""

LEASE = timedelta(minutes=15)
"""Far above `BUDGET_S`: no run outlasts it but one of a paused worker, and then two do no harm."""


class Maintenance:
    """The scheduled jobs. Two tickers, or a tick run twice, run each job once a period."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        jobs: Jobs,
        requeuer: Requeuer,
        nudger: Nudger,
        owner: str,
        on_progress: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._database = database
        self._jobs = jobs
        self._requeuer = requeuer
        self._nudger = nudger
        self._owner = owner
        self._on_progress = on_progress
        self._should_stop = should_stop

    def tick(self) -> None:
        """Note that the ticker lives, and run what is due.

        At most one run of a job at a time, by its lease. A run that reached its budget is due again at the
        next tick; one that was killed, or lost the database, when its lease ends.
        """
        self._on_progress()
        try:
            self._jobs.mark(TICKER, owner=self._owner)
            every = timedelta(seconds=self._settings.cleanup_every_s)
            if self._jobs.claim(CLEANUP, every=every, lease=LEASE, owner=self._owner):
                self._run_cleanup()
            self._requeue()
        except ServerAway as error:
            log.warning("maintenance_interrupted", reason=str(error))

    def _requeue(self) -> None:
        if self._requeuer.run(should_stop=self._out_of_time()):
            self._nudger.nudge("embed")

    def _out_of_time(self) -> Callable[[], bool]:
        deadline = time.monotonic() + BUDGET_S
        return lambda: self._should_stop() or time.monotonic() >= deadline

    def _run_cleanup(self) -> None:
        try:
            report = clean_up(
                self._database,
                cleanup_policy(self._settings),
                dry_run=False,
                on_progress=self._on_progress,
                should_stop=self._out_of_time(),
            )
        except ServerAway:
            raise
        except MemorySystemError as error:
            log.error("cleanup_stopped", reason=str(error))  # noqa: TRY400 (a decision, not a crash)
            self._jobs.finish(CLEANUP, owner=self._owner, ok=True, result=str(error))
            return
        log.info(
            "cleanup_done",
            found=report.total_found,
            deleted=report.deleted,
            stopped_early=report.stopped_early,
        )
        through = not report.stopped_early
        self._jobs.finish(CLEANUP, owner=self._owner, ok=through, result=json.dumps(report.as_json()))
        if report.deleted:
            self._nudger.nudge("index")


def cleanup_policy(settings: Settings) -> CleanupPolicy:
    """Return the policy that the settings describe."""
    return CleanupPolicy(
        max_age_days=settings.cleanup_max_age_days,
        min_importance=settings.cleanup_min_importance,
        brake_share=settings.cleanup_brake_share,
        brake_count=settings.cleanup_brake_count,
    )
