"""SQL on scheduled jobs: when each is due, and the lease that keeps two runs from overlapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database, database_now
from memory.schema import job_runs

if TYPE_CHECKING:
    from datetime import datetime, timedelta

TICKER = "ticker"
CLEANUP = "cleanup"
AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One job's last run."""

    name: str
    last_start_at: datetime | None
    last_ok_at: datetime | None
    lease_until: datetime | None
    owner: str | None
    last_result: str | None


class Jobs:
    """Due-ness lives in the database, by its clock: two tickers do no harm, an hour's outage is one run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, name: str, *, every: timedelta, lease: timedelta, owner: str) -> bool:
        """Take the job if its last good run is older than `every` and nobody holds its lease.

        A job that never ran starts its first period now: nothing is cleaned up the minute it is set up.
        """
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            now = database_now(connection)
            first = dialect.insert(job_runs).values(name=name, last_ok_at=now).on_conflict_do_nothing()
            connection.execute(first)
            due = or_(job_runs.c.last_ok_at.is_(None), job_runs.c.last_ok_at <= now - every)
            free = or_(job_runs.c.lease_until.is_(None), job_runs.c.lease_until <= now)
            result = connection.execute(
                update(job_runs)
                .where(job_runs.c.name == name, due, free)
                .values(last_start_at=now, lease_until=now + lease, owner=owner)
            )
            return result.rowcount == 1

    def finish(self, name: str, *, owner: str, ok: bool, result: str) -> None:
        """Give the lease back. A run that is not `ok`, failed or only half done, leaves the job due."""
        with self._database.write() as connection:
            now = database_now(connection)
            values: dict[str, object] = {"lease_until": None, "last_result": result}
            if ok:
                values["last_ok_at"] = now
            connection.execute(
                update(job_runs).where(job_runs.c.name == name, job_runs.c.owner == owner).values(**values)
            )

    def mark(self, name: str, *, owner: str) -> None:
        """Note that `name` just ran, for jobs that need no lease (the ticker's own sign of life)."""
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            now = database_now(connection)
            values = {"last_start_at": now, "last_ok_at": now, "owner": owner}
            statement = dialect.insert(job_runs).values(name=name, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    def record(self, name: str, *, owner: str, result: str) -> None:
        """Note a good run that nobody claimed, with its result: somebody asked for it."""
        self.mark(name, owner=owner)
        with self._database.write() as connection:
            connection.execute(update(job_runs).where(job_runs.c.name == name).values(last_result=result))

    def all(self) -> list[JobRun]:
        """Return every job's last run, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(job_runs).order_by(job_runs.c.name)).mappings().all()
        return [JobRun(**row) for row in rows]
