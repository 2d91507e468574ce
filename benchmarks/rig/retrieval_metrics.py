"""How well ranked answers meet a question's evidence. The formulas are the field's usual ones."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

AT = (1, 5, 10, 20)
"""So many of the first answers are looked at."""

METRICS = (*(f"recall@{k}" for k in AT), *(f"any@{k}" for k in AT), "MRR", "nDCG@10")
_NDCG_AT = 10


def scored(answers: Sequence[Sequence[str]], evidence: Set[str]) -> dict[str, float]:
    """Return each of METRICS, 0..1.

    recall@k is the share of the evidence in the first k answers, any@k whether there is any of it. MRR is
    one over the rank of the first answer that has some. nDCG@10 counts an answer with evidence that none
    before it had 1 / log2(1 + rank), over what the best order would have.

    Args:
        answers: best first; each is what it shows: a memory's key, or several with what was said around it.
        evidence: at least one key.

    """
    found: dict[str, float] = {}
    for k in AT:
        shown = {key for answer in answers[:k] for key in answer}
        found[f"recall@{k}"] = len(evidence & shown) / len(evidence)
        found[f"any@{k}"] = float(bool(evidence & shown))
    first = next((rank for rank, answer in enumerate(answers, start=1) if evidence & {*answer}), None)
    found["MRR"] = 1 / first if first else 0.0
    gain, seen = 0.0, set[str]()
    for rank, answer in enumerate(answers[:_NDCG_AT], start=1):
        new = evidence & {*answer} - seen
        seen |= new
        gain += bool(new) / math.log2(1 + rank)
    best = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(evidence), _NDCG_AT) + 1))
    found["nDCG@10"] = min(gain / best, 1.0)
    return found
