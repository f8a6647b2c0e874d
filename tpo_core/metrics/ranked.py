"""Recall of ranked moments at IoU strictly above a threshold, as the codes of Ego4D NLQ and 2D-TAN define it.

The overlap is over the hull, max(end) - min(start); of two equal points it is NaN, which is above nothing.
"""

from collections.abc import Sequence

import numpy as np

NOTHING = (float("nan"), float("nan"))  # a rejected moment: it keeps its place and overlaps nothing


def overlaps(ranked_k2: Sequence[Sequence[float]], truth_2: Sequence[float]) -> np.ndarray:
    """Hull IoU of each moment with the truth, (k,)."""
    found, truth = np.array(ranked_k2, np.float64).reshape(-1, 2), np.array(truth_2, np.float64)
    inter = np.maximum(0.0, np.minimum(found[:, 1], truth[1]) - np.maximum(found[:, 0], truth[0]))
    hull = np.maximum(0.0, np.maximum(found[:, 1], truth[1]) - np.minimum(found[:, 0], truth[0]))
    with np.errstate(all="ignore"):
        return inter / hull


def suppress(ranked_k2: Sequence[Sequence[float]], threshold: float, keep: int, strict: bool) -> list[list[float]]:
    """Non-maximum suppression in the order given: of the first `keep` moments, none overlaps an earlier one by more.

    The overlap is plain. Strict: an undefined one (0/0, NaN) suppresses too.
    """
    moments = np.array(ranked_k2, np.float64).reshape(-1, 2)
    lengths = moments[:, 1] - moments[:, 0]
    order = np.arange(len(moments))
    kept: list[int] = []
    while len(order) and len(kept) < keep:
        best, others = int(order[0]), order[1:]
        kept.append(best)
        left, right = np.maximum(moments[best, 0], moments[others, 0]), np.minimum(moments[best, 1], moments[others, 1])
        inter = np.maximum(0.0, right - left)
        with np.errstate(all="ignore"):
            overlap = inter / (lengths[best] + lengths[others] - inter)
        order = others[overlap <= threshold if strict else ~(overlap > threshold)]
    return moments[kept].tolist()


def recalls(
    found: Sequence[np.ndarray], thresholds: Sequence[float], ranks: Sequence[int], joint: str
) -> dict[str, float]:
    """Shares of queries with an overlap above t among the first k, named `Rank@k<joint>mIoU@t`, and `mIoU` of the top.

    found: the overlaps of each query, best first; a query without any is a miss.
    """
    numbers = {
        f"Rank@{k}{joint}mIoU@{t:g}": float(np.mean([bool((overlap[:k] > t).any()) for overlap in found]))
        for k in ranks
        for t in thresholds
    }
    return numbers | {"mIoU": float(np.mean([overlap[0] if len(overlap) else 0.0 for overlap in found]))}
