"""The ways in which exports write an instant, as aware UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal

_FURTHEST_S = 10**12  # beyond the year 9999
_MOST_CHARACTERS = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_epoch(seconds: object) -> datetime | None:
    """Return the instant of a number, or a text of one, of seconds since 1970; to the microsecond.

    `None` for anything else, and outside of the years 1 to 9999.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | str | Decimal):
        return None
    try:
        exact = Decimal(str(seconds)) if len(str(seconds)) <= _MOST_CHARACTERS else Decimal("NaN")
        if not abs(exact) < _FURTHEST_S:  # which no NaN is
            return None
        return _EPOCH + timedelta(microseconds=int(exact * 1_000_000))
    except (ArithmeticError, ValueError):
        return None


def from_iso(text: object, *, zone: tzinfo | None = None) -> datetime | None:
    """Return the instant of an ISO 8601 text, without a zone taken as of `zone`, else of UTC; or `None`."""
    if not isinstance(text, str):
        return None
    try:
        instant = datetime.fromisoformat(text)
        return (instant.replace(tzinfo=zone or UTC) if instant.tzinfo is None else instant).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
