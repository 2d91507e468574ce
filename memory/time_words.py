"""Reads when something was from the words of a query: "last week", "in May 2023", "since Monday"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dateutil.relativedelta import relativedelta

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Span = tuple[datetime, datetime]
    """Begin, and the end that does not belong to it any more."""

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS: Mapping[str, int] = {
    "a couple of": 2,
    "a": 1,
    "an": 1,
    **{word: n for n, word in enumerate(_SMALL, start=1)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWords:
    """What a query says about when."""

    words: str
    """as they stand in the query"""
    since: datetime | None
    """not before this instant, aware UTC; `None` for no bound"""
    until: datetime | None
    """before this instant, likewise"""


def read_time_words(query: str, *, now: datetime) -> TimeWords | None:
    """Return what the first time words of a query say, `None` where there are none.

    It knows, in English: today, yesterday, the day before yesterday; this and last week, weekend, month and
    year; days of the week; a number of days, weeks, months or years ago, or the last so many; dates such as
    2023-05-07, 7 May 2023 or May 7th; months and years. Before them may stand in, on, during, since, after,
    before, until, and "between … and" or "from … to". A month, a year or a day of the week by itself needs
    such a word: "may" is not always a month. What has no year is the last one that has begun. Weeks begin on
    Monday.

    Args:
        query: any text.
        now: aware; days begin and end in its time zone.

    """
    for match in _PHRASE.finditer(query):
        bounds = _bounds(match, now)
        if bounds is not None:
            since, until = (None if at is None else at.astimezone(UTC) for at in bounds)
            return TimeWords(words=match.group(), since=since, until=until)
    return None


def _bounds(phrase: re.Match[str], now: datetime) -> tuple[datetime | None, datetime | None] | None:
    lead = (phrase["lead"] or "").lower()
    first = _span(phrase["first"], now, is_led=bool(lead))
    if first is None:
        return None
    if phrase["last"] and lead in {"between", "from"}:
        last = _span(phrase["last"], now, is_led=True)
        if last and first[0] >= last[1]:  # as "March" in "between March and May 2024"
            first = _span(f"{phrase['first']} {last[0].year}", now, is_led=True) or first
        return (first[0], last[1]) if last and first[0] < last[1] else None
    begin, end = first
    bounds: dict[str, tuple[datetime | None, datetime | None]] = {
        "since": (begin, None),
        "after": (end, None),
        "before": (None, begin),
        "until": (None, end),
        "till": (None, end),
    }
    return bounds.get(lead, first)


def _span(words: str, now: datetime, *, is_led: bool) -> Span | None:
    """Return what a moment's words mean; `None` where it is no date, or may mean something else."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for pattern, read, stands_alone in _MOMENTS:
        match = pattern.fullmatch(words)
        if match and (stands_alone or is_led):
            try:
                return read(match, today)
            except (ValueError, OverflowError):  # 31 February; the year 0
                return None
    return None


def _named_day(match: re.Match[str], today: datetime) -> Span:
    back = {"today": 0, "yesterday": 1}.get(match[0].lower(), 2)
    return _of("day", today - timedelta(days=back))


def _this_or_last(match: re.Match[str], today: datetime) -> Span:
    unit, back = match["unit"].lower(), int(match["which"].lower() != "this")
    if unit == "weekend":
        monday = today - timedelta(days=today.weekday() + 7 * back)
        return monday + timedelta(days=5), monday + timedelta(days=7)
    begin, _ = _of(unit, today)
    return _of(unit, begin - _units(back, unit))


def _weekday(match: re.Match[str], today: datetime) -> Span:
    """The last such day; today counts, unless it says "last"."""
    back = (today.weekday() - _WEEKDAYS.index(match["day"].lower())) % 7
    if not back and (match["which"] or "").lower() == "last":
        back = 7
    return _of("day", today - timedelta(days=back))


def _ago(match: re.Match[str], today: datetime) -> Span:
    unit = match["unit"].lower()
    return _of(unit, today - _units(_number(match["n"]), unit))


def _last_few(match: re.Match[str], today: datetime) -> Span:
    unit = match["unit"].lower()
    return today - _units(_number(match["n"]), unit), today + timedelta(days=1)


def _date(match: re.Match[str], today: datetime) -> Span:
    given = match.groupdict()
    month = _month(given["month"])
    if given["year"]:
        return _of("day", today.replace(year=int(given["year"]), month=month, day=int(given["day"])))
    day = today.replace(month=month, day=int(given["day"]))
    return _of("day", day if day <= today else day.replace(year=day.year - 1))


def _month_of_year(match: re.Match[str], today: datetime) -> Span:
    month = _month(match["month"])
    if match["year"]:
        return _of("month", today.replace(year=int(match["year"]), month=month, day=1))
    begin = today.replace(month=month, day=1)
    return _of("month", begin if begin <= today else begin.replace(year=begin.year - 1))


def _year(match: re.Match[str], today: datetime) -> Span:
    return _of("year", today.replace(year=int(match["year"]), month=1, day=1))


def _of(unit: str, day: datetime) -> Span:
    """Return the day, week, month or year in which a day is."""
    match unit:
        case "week":
            begin = day - timedelta(days=day.weekday())
        case "month":
            begin = day.replace(day=1)
        case "year":
            begin = day.replace(month=1, day=1)
        case _:
            begin = day
    return begin, begin + _units(1, unit)


def _units(n: int, unit: str) -> relativedelta:
    match unit:
        case "week":
            return relativedelta(weeks=n)
        case "month":
            return relativedelta(months=n)
        case "year":
            return relativedelta(years=n)
    return relativedelta(days=n)


def _month(name: str) -> int:
    if name.isdigit():
        return int(name)
    return next(n for n, month in enumerate(_MONTHS, start=1) if month.startswith(name[:3].lower()))


def _number(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[" ".join(word.lower().split())]


_MONTH = "(?P<month>" + "|".join(f"{name}|{name[:3]}" for name in _MONTHS) + "|sept)"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY_OF_MONTH = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_N = r"(?P<n>\d{1,3}|" + "|".join(_NUMBERS).replace(" ", r"\s+") + ")"
_UNITS = r"(?P<unit>day|week|month|year)"

_MOMENTS: list[tuple[re.Pattern[str], Callable[[re.Match[str], datetime], Span], bool]] = [
    (re.compile(pattern, re.IGNORECASE), read, stands_alone)
    for pattern, read, stands_alone in [
        (r"today|yesterday|the\s+day\s+before\s+yesterday", _named_day, True),
        (r"(?P<which>this|last)\s+(?P<unit>week|weekend|month|year)", _this_or_last, True),
        (rf"(?P<which>last|this)\s+(?P<day>{'|'.join(_WEEKDAYS)})", _weekday, True),
        (rf"(?P<which>)(?P<day>{'|'.join(_WEEKDAYS)})", _weekday, False),
        (rf"{_N}\s+{_UNITS}s?\s+ago", _ago, True),
        (rf"(?:the\s+)?(?:last|past)\s+{_N}\s+{_UNITS}s?", _last_few, True),
        (r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)", _date, True),
        (rf"(?:the\s+)?{_DAY_OF_MONTH}(?:\s+of)?\s+{_MONTH}(?:,?\s+{_YEAR})?", _date, True),
        (rf"{_MONTH}\s+{_DAY_OF_MONTH}(?:,?\s+{_YEAR})?", _date, True),
        (rf"{_MONTH}(?:\s+of)?,?\s+{_YEAR}", _month_of_year, True),
        (rf"(?:last\s+)?{_MONTH}(?P<year>)", _month_of_year, False),
        (_YEAR, _year, False),
    ]
]

_MOMENT = "|".join(re.sub(r"\?P<\w+>", "?:", pattern.pattern) for pattern, _, _ in _MOMENTS)
_PHRASE = re.compile(
    r"\b(?:(?P<lead>in|on|during|since|after|before|until|till|between|from)\s+)?"
    rf"(?P<first>{_MOMENT})\b(?:\s+(?:and|to|until|till)\s+(?P<last>{_MOMENT})\b)?",
    re.IGNORECASE,
)
