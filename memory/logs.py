"""Logging: events with fields, one line each, on standard error. Never a memory's content."""

from __future__ import annotations

import logging
import sys

import structlog

_OURS = ("memory", "ingest", "api_stub")
_CHATTY = ("celery.worker.strategy", "celery.worker.request", "celery.app.trace", "celery.beat", "mcp")
"""They log every task or request: two ticks a second would fill the disk with nothing."""


def log_as_a_library() -> None:
    """Hand events to the standard logging of the program around us, unless it configured structlog itself.

    Nothing is printed unless the program asks its logging to: a library does not write on its streams.
    """
    for package in _OURS:
        logger = logging.getLogger(package)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # the program may configure it later
    )


def configure_logging(*, level: str, process: str) -> None:
    """Write this process's events, and those of the libraries it uses, as lines of key=value."""
    timestamper = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def add_process(
        _logger: object, _name: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, "process": process}

    shared: list[structlog.typing.Processor] = [
        add_process,
        structlog.stdlib.add_log_level,
        timestamper,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "process", "event"])
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
