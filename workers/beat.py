"""The ticker: Celery beat with nothing to remember, since due-ness lives in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery.apps.beat import Beat
from celery.beat import Scheduler

from memory.broker import QUEUE_OF, TaskName, make_celery
from memory.heartbeat import Heartbeat
from memory.logs import configure_logging

if TYPE_CHECKING:
    from memory.settings import Settings

NAME = "beat"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def run_beat(settings: Settings) -> None:
    """Tick until SIGTERM."""
    configure_logging(level=settings.log_level, process=NAME)
    app = make_celery(settings)
    app.conf.beat_schedule = schedule(settings)
    app.log.setup = _keep_our_logging
    heartbeat = Heartbeat(settings.home, NAME)

    class Ticker(Scheduler):  # type: ignore[misc]
        """Keeps its schedule in memory, and shows that it ticks."""

        def tick(self, *args: Any, **kwargs: Any) -> Any:
            heartbeat.touch()
            return super().tick(*args, **kwargs)

    Beat(app=app, scheduler_cls=Ticker, loglevel=settings.log_level, quiet=True).run()


def schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the ticks. Each expires after its own period, so an outage leaves no pile of them."""
    return {
        TaskName.DRAIN.value: _entry(TaskName.DRAIN, settings.tick_s),
        TaskName.APPLY.value: _entry(TaskName.APPLY, settings.tick_s),
        # At once, too: what fell due while nothing ran is not put off, and the ticker shows itself.
        TaskName.MAINTAIN.value: {
            **_entry(TaskName.MAINTAIN, settings.maintenance_tick_s),
            "last_run_at": _LONG_AGO,
        },
    }


def _entry(task: TaskName, every_s: float) -> dict[str, Any]:
    return {
        "task": task.value,
        "schedule": every_s,
        "options": {"queue": QUEUE_OF[task].value, "expires": every_s, "ignore_result": True},
    }


def _keep_our_logging(*_args: Any, **_kwargs: Any) -> None:
    """Leave logging as `configure_logging` set it up."""
