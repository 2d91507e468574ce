"""Times and what is said of many of them: medians, quantiles, shares."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds a call took, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share (0..1) of the values does not pass.

    Raises:
        ValueError: there are no values.

    """
    if not values:
        raise ValueError("no values were measured")
    ordered = sorted(values)
    place = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(place) - 1)]


def in_ms(seconds: Sequence[float]) -> dict[str, float | int]:
    """Return p50, p99 and the longest in milliseconds, and of how many they are."""
    return {
        "p50 ms": rounded(1000 * quantile(seconds, 0.5)),
        "p99 ms": rounded(1000 * quantile(seconds, 0.99)),
        "longest ms": rounded(1000 * max(seconds)),
        "n": len(seconds),
    }


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median over the rounds, figure by figure."""
    return {name: rounded(statistics.median(r[name] for r in rounds)) for name in rounds[0]}


def rounded(value: float) -> float:
    """Round to three digits that mean something, and to none behind the point from a thousand on."""
    if value == 0 or value != value:  # noqa: PLR0124 (not a number is not itself)
        return value
    return round(value) if abs(value) >= 1000 else float(f"{value:.3g}")
