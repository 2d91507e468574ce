"""The maintenance tick: runs the jobs that the database says are due."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from memory.cleanup import CleanupPolicy, clean_up
from memory.errors import MemorySystemError, ServerAway

if TYPE_CHECKING:
    from memory.broker import Nudger
    from memory.database import Database
    from memory.settings import Settings
    from memory.store.jobs import Jobs

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=15)
TICKER = "ticker"
CLEANUP = "cleanup"


class Maintenance:
    """The scheduled jobs. Two tickers, or a tick run twice, run each job once a period."""

    def __init__(
        self, *, settings: Settings, database: Database, jobs: Jobs, nudger: Nudger, owner: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._jobs = jobs
        self._nudger = nudger
        self._owner = owner

    def tick(self) -> None:
        """Note that the ticker lives, and run what is due.

        At most one run of a job at a time, by its lease; a run that failed is due again at once.
        """
        try:
            self._jobs.mark(TICKER, owner=self._owner)
            every = timedelta(seconds=self._settings.cleanup_every_s)
            if self._jobs.claim(CLEANUP, every=every, lease=LEASE, owner=self._owner):
                self._run_cleanup()
        except ServerAway as error:
            log.warning("maintenance_interrupted", reason=str(error))

    def _run_cleanup(self) -> None:
        try:
            report = clean_up(self._database, cleanup_policy(self._settings), dry_run=False)
        except ServerAway:
            raise
        except MemorySystemError as error:
            log.error("cleanup_stopped", reason=str(error))  # noqa: TRY400 (a decision, not a crash)
            self._jobs.finish(CLEANUP, owner=self._owner, ok=True, result=str(error))
            return
        log.info("cleanup_done", found=report.total_found, deleted=report.deleted)
        self._jobs.finish(CLEANUP, owner=self._owner, ok=True, result=json.dumps(report.as_json()))
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
