"""Audits: every hour by the books of the database, and whenever somebody asks."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from memory.store.jobs import AUDIT

if TYPE_CHECKING:
    from memory.audit import Audit, Auditor, Pace
    from memory.repair import Repair, Repairer
    from memory.store.jobs import Jobs

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=15)
"""Far above an audit of some million memories. One that outlasts it does no harm: the owner is one thread."""

_LOOK_EVERY_S = 30.0
"""Asking whether an audit is due writes to the database."""


class Audits:
    """Runs audits and repairs in the thread of the index's owner, and notes their result.

    Args:
        auditor: audits this index.
        repairer: mends what that finds.
        jobs: where the result is noted, and when the next audit is due.
        every_s: the period.
        owner: who this is, in the books.

    """

    def __init__(
        self, *, auditor: Auditor, repairer: Repairer, jobs: Jobs, every_s: float, owner: str
    ) -> None:
        self._auditor = auditor
        self._repairer = repairer
        self._jobs = jobs
        self._every = timedelta(seconds=every_s)
        self._look_every_s = min(_LOOK_EVERY_S, every_s)
        self._looked_at = float("-inf")
        self._owner = owner
        self._found_something = False

    def run_when_due(self, pace: Pace) -> None:
        """Audit if the last one is a period ago. It goes at this pace.

        Raises:
            ServerAway: the database cannot be reached; it is done when the lease has ended.

        """
        if time.monotonic() - self._looked_at < self._look_every_s:
            return
        self._looked_at = time.monotonic()
        if not self._jobs.claim(AUDIT, every=self._every, lease=LEASE, owner=self._owner):
            return
        # A sample that misses the damage of before would sound the all-clear: then all is looked at.
        found = self._auditor.audit(pace=pace, every_vector=self._found_something)
        self._jobs.finish(AUDIT, owner=self._owner, ok=True, result=self._told(found))

    def audit(self, pace: Pace) -> Audit:
        """Audit now, and note the result like that of any other audit."""
        found = self._auditor.audit(pace=pace, every_vector=self._found_something)
        self._jobs.record(AUDIT, owner=self._owner, result=self._told(found))
        return found

    def repair(self, pace: Pace) -> Repair:
        """Mend what can be mended, and note what is left."""
        repair = self._repairer.repair(pace=pace)
        self._jobs.record(AUDIT, owner=self._owner, result=self._told(repair.after))
        return repair

    def _told(self, found: Audit) -> str:
        self._found_something = not found.clean
        comparison = found.comparison
        if found.clean:
            log.info("audit_done", n_memories=comparison.n_memories, n_sampled=comparison.n_sampled)
        else:
            log.error("audit_alarm", found=found.summary, examples=comparison.examples)
        return json.dumps(found.as_json())
