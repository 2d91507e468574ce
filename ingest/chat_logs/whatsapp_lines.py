"""The lines of a WhatsApp text export: where a message begins, and in which order its dates are written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.chat_logs.reader import DateOrder

_INVISIBLE = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\ufeff"
_DATE = r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})"
_TIME = r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?(?:\s*([APap])\.?\s*[Mm]\.?)?"
_FORMS = (
    re.compile(rf"\[{_DATE},?\s+{_TIME}\]\s?(.*)", re.DOTALL),  # iOS
    re.compile(rf"{_DATE},?\s+{_TIME}\s+-\s(.*)", re.DOTALL),  # Android
)
_ORDERS: tuple[DateOrder, ...] = ("dmy", "mdy", "ymd")


@dataclass(frozen=True, slots=True)
class Start:
    """A line that begins a message: its date as written, its time, and what follows."""

    numbers: tuple[int, int, int]  # of the date, as they stand
    has_year_first: bool  # four digits stand in front
    hour: int
    minute: int
    second: int
    rest: str

    def at(self, order: DateOrder) -> datetime | None:
        """Return the time as written, without a zone; `None` where it is none in this order."""
        day = date_of(self.numbers, order)
        if day is None or self.hour > 23 or self.minute > 59 or self.second > 59:
            return None
        return datetime(day.year, day.month, day.day, self.hour, self.minute, self.second)  # noqa: DTZ001


class Lines:
    """Tells lines that begin a message from those that go on with one, by the form of the first."""

    def __init__(self) -> None:
        self._form: re.Pattern[str] | None = None

    def start(self, line: str) -> Start | None:
        """Return the start that this line is, if it is one."""
        visible = line.lstrip(_INVISIBLE)
        for form in (self._form,) if self._form else _FORMS:
            if (match := form.fullmatch(visible)) and (found := _start(match)):
                self._form = form
                return found
        return None


def _start(match: re.Match[str]) -> Start | None:
    first, _, second, third, hour, minute, seconds, half, rest = match.groups()
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + 12 * (half in "pP")
    start = Start(
        numbers=(int(first), int(second), int(third)),
        has_year_first=len(first) == 4,
        hour=hours,
        minute=int(minute),
        second=int(seconds or 0),
        rest=rest,
    )
    return start if any(start.at(order) for order in _ORDERS) else None


def date_of(numbers: tuple[int, int, int], order: DateOrder) -> date | None:
    """Return the date, `None` where it is none in this order. Years of two digits are of 2000 to 2099."""
    year, month, day = (numbers[order.index(part)] for part in "ymd")
    try:
        return date(year + 2000 if year < 100 else year, month, day)
    except ValueError:
        return None


def date_orders(dates: Iterable[tuple[tuple[int, int, int], bool]]) -> list[DateOrder]:
    """Return the orders in which all of these are dates; if there are several, those in which they only grow.

    Two orders that make the same dates of all are one.

    Args:
        dates: the numbers of each, and whether a year of four digits stands in front, in the file's order.

    """
    known = list(dates)
    possible: list[DateOrder] = (
        ["ymd"] if any(has_year_first for _, has_year_first in known) else ["dmy", "mdy"]
    )
    read = {order: [date_of(numbers, order) for numbers, _ in known] for order in possible}
    fitting = {order: days for order, days in read.items() if None not in days}
    growing = {order: days for order, days in fitting.items() if _only_grows(days)}
    kept = growing or fitting
    if len(kept) > 1 and kept["dmy"] == kept["mdy"]:
        del kept["mdy"]
    return list(kept)


def _only_grows(days: list[date | None]) -> bool:
    return all(a <= b for a, b in pairwise(days) if a is not None and b is not None)
