"""Fits the weights of a score, so that what answers a question is likely under a softmax over all answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MOST_STEPS = 100
_ENOUGH = 1e-9
_DAMPING = 1e-3  # a weight's square costs so much, for each question


def fitted(terms: Sequence[Floats], right: Sequence[npt.NDArray[np.bool_]]) -> Floats:
    """Return the weights, float64 (t,), that sum to 1, by Newton's method.

    They maximise the mean over the questions of the mean log-likelihood of their right answers, under a
    softmax of the weighted sums (the listwise loss of ListNet; Cao et al., 2007), less a penalty.

    Args:
        terms: for each question float64 (n, t): the terms of each answer's score.
        right: for each question bool (n,), at least one: which answers are right.

    """
    weights = np.zeros(terms[0].shape[1])
    loss, slope, curve = _loss(weights, terms, right)
    for _ in range(_MOST_STEPS):
        step = np.linalg.solve(curve, slope)
        while (ahead := _loss(weights - step, terms, right))[0] > loss:  # too far
            step /= 2
        weights -= step
        is_there = loss - ahead[0] < _ENOUGH
        loss, slope, curve = ahead
        if is_there:
            break
    found: Floats = weights / weights.sum()
    return found


def _loss(
    weights: Floats, terms: Sequence[Floats], right: Sequence[npt.NDArray[np.bool_]]
) -> tuple[float, Floats, Floats]:
    """Return the loss, its gradient and its Hessian."""
    loss = _DAMPING / 2 * float(weights @ weights)
    slope = _DAMPING * weights
    curve = _DAMPING * np.eye(len(weights))
    for values, is_right in zip(terms, right, strict=True):
        scores = values @ weights
        scores -= scores.max()
        share = np.exp(scores)
        loss += float(np.log(share.sum()) - scores[is_right].mean()) / len(terms)
        share /= share.sum()
        mean = share @ values
        slope = slope + (mean - values[is_right].mean(axis=0)) / len(terms)
        curve = curve + ((values * share[:, None]).T @ values - np.outer(mean, mean)) / len(terms)
    return loss, slope, curve
