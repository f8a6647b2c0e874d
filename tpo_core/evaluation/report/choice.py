"""Which answers of an entry are shown: some of the best, of the middle and of the worst, and none by hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from tpo_core.evaluation.report.entries import Row

SHOWN = 3  # of each group
GROUPS = ("best", "median", "worst")


def rank(row: Row) -> float | None:
    """The number by which an answer is ranked: J&F of a mask, else its IoU, else its first score; 0 for a failure
    without any. None for an answer that nothing measures (a caption, a track that is never visible)."""
    scores = {name: value for name, value in row.scores.items() if value is not None and math.isfinite(value)}
    if {"j", "f"} <= scores.keys():
        return (scores["j"] + scores["f"]) / 2
    if scores:
        return scores.get("iou", next(iter(scores.values())))
    return 0.0 if row.failure and not row.scores else None


def choose(ranks: Sequence[tuple[float, str, int]]) -> Mapping[str, list[int]]:
    """Numbers of the rows to show, by group, from (rank, sample id, number) of all ranked rows; none twice.

    Equal ranks come in an order that has nothing to do with that of the file, where neighbours show one video.
    """
    ordered = [number for *_, number in sorted(ranks, key=lambda one: (-one[0], _shuffled(one[1]), one[2]))]
    count = len(ordered)
    if count <= SHOWN * len(GROUPS):
        first, last = -(-count // 3), count - count // 3
        return dict(zip(GROUPS, (ordered[:first], ordered[first:last], ordered[last:]), strict=True))
    middle = count // 2 - SHOWN // 2
    return dict(zip(GROUPS, (ordered[:SHOWN], ordered[middle : middle + SHOWN], ordered[count - SHOWN :]), strict=True))


def some(unranked: Sequence[tuple[str, int]]) -> list[int]:
    """Numbers of a few rows to show of those that have no rank, from (sample id, number)."""
    return [number for _, number in sorted(unranked, key=lambda one: (_shuffled(one[0]), one[1]))[:SHOWN]]


def _shuffled(sample_id: str) -> bytes:
    return hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).digest()
