"""Moment retrieval as the QVHighlights evaluator defines it: R1, mIoU, mAP, over ranges of truth lengths.

Definition: https://github.com/jayleicn/moment_detr, standalone_eval. That evaluator takes two different overlaps: plain
(over |p| + |g| - intersection) to match and to choose a truth, and over the hull for R1 and mIoU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AP_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
MAX_RANKED = 10  # windows of a prediction that enter average precision
# Lengths in seconds, (exclusive, inclusive], of the truth windows that a range keeps; a full range keeps them all.
RANGES_S = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0), "full": (-math.inf, math.inf)}


@dataclass(frozen=True)
class Query:
    """One query: `truths_m2` and `ranked_k2` (start_s, end_s), those predicted in falling order of score; `top_2`, the
    window that R1 looks at. A predicted window of NaN is a rejected one: it keeps its place and overlaps nothing."""

    qid: Any
    truths_m2: np.ndarray
    ranked_k2: np.ndarray
    top_2: np.ndarray


def plain_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over |one| + |other| - intersection of windows (..., 2) that broadcast; 0/0 is NaN."""
    left, right = np.maximum(one[..., 0], other[..., 0]), np.minimum(one[..., 1], other[..., 1])
    inter = np.maximum(right - left, 0)
    union = (one[..., 1] - one[..., 0]) + (other[..., 1] - other[..., 0]) - inter
    with np.errstate(all="ignore"):
        return inter / union


def hull_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over max(end) - min(start) of windows (..., 2) that broadcast; 0/0 is 0, NaN stays."""
    inter = np.maximum(
        0, np.minimum(one[..., 1], other[..., 1]) - np.maximum(one[..., 0], other[..., 0]), dtype=np.float64
    )
    hull = np.maximum(one[..., 1], other[..., 1]) - np.minimum(one[..., 0], other[..., 0])
    with np.errstate(all="ignore"):
        return np.divide(inter, hull, out=np.zeros_like(inter), where=hull != 0)


def in_range(query: Query, name: str) -> np.ndarray:
    """The truths of a query whose length falls in a range."""
    low, high = RANGES_S[name]
    if name == "full":
        return query.truths_m2
    lengths = query.truths_m2[:, 1] - query.truths_m2[:, 0]
    return query.truths_m2[(lengths > low) & (lengths <= high)]


def top1_iou(queries: Sequence[Query], truths: Sequence[np.ndarray], strict: bool) -> np.ndarray:
    """Hull IoU of each query's top window with the truth that it overlaps most (the first on ties), (Q,).

    Strict: an undefined overlap (0/0, NaN) wins the choice of the truth and a NaN stays NaN; else it is 0.
    """
    tops = np.array([query.top_2 for query in queries])
    chosen = np.empty_like(tops)
    for number, (top, truth) in enumerate(zip(tops, truths, strict=True)):
        overlap = plain_iou(top, truth)
        chosen[number] = truth[np.argmax(overlap if strict else np.nan_to_num(overlap, nan=-1.0))]
    found = hull_iou(tops, chosen)
    return found if strict else np.nan_to_num(found, nan=0.0)


def average_precision(queries: Sequence[Query], truths: Sequence[np.ndarray], strict: bool) -> np.ndarray:
    """Average precision of each query at each of AP_THRESHOLDS, (Q, 10).

    Each prediction, best first, takes the free truth that it overlaps most (of equals the last) if by the threshold at
    least; else it is a false positive. Strict: an undefined overlap is above every threshold; else it is a miss.
    """
    n, ranks = len(queries), max(len(query.ranked_k2) for query in queries)
    width = max(len(truth) for truth in truths)
    overlaps = np.full((n, ranks, width), -np.inf)  # what is not there overlaps nothing
    for number, (query, truth) in enumerate(zip(queries, truths, strict=True)):
        found = plain_iou(query.ranked_k2[:, None], truth[None])
        overlaps[number, : found.shape[0], : found.shape[1]] = found if strict else np.nan_to_num(found, nan=-np.inf)
    order = np.argsort(overlaps, axis=2, kind="stable")[:, :, ::-1]
    hits = np.zeros((n, len(AP_THRESHOLDS), ranks), bool)
    free = np.ones((n, len(AP_THRESHOLDS), width), bool)
    rows = np.arange(n)
    for rank in range(ranks):
        undecided = np.ones((n, len(AP_THRESHOLDS)), bool)
        for place in range(width):
            truth_index = order[:, rank, place]
            below = overlaps[rows, rank, truth_index][:, None] < np.array(AP_THRESHOLDS)
            undecided &= ~below
            takes = undecided & free[rows, :, truth_index]
            free[rows, :, truth_index] &= ~takes
            hits[:, :, rank] |= takes
            undecided &= ~takes
    return _interpolated(hits, np.array([len(truth) for truth in truths], np.float64))


def _interpolated(hits: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Area under precision made monotonic from the right (VOC 2011), (Q, T), of hits (Q, T, ranks)."""
    found = np.cumsum(hits, axis=2).astype(np.float64)
    precision = found / np.arange(1, hits.shape[2] + 1)
    precision = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    recall = np.concatenate([np.zeros_like(found[:, :, :1]), found / positives[:, None, None]], axis=2)
    return np.sum(np.diff(recall, axis=2) * precision, axis=2)


def percent(value: float) -> float:
    """A share in percent with two decimals, by the format string of the official code."""
    return float(f"{100 * value:.2f}")


def r1_thresholds(low: float) -> tuple[float, ...]:
    """low, low + .05, ... .95."""
    return tuple(round(low + 0.05 * i, 2) for i in range(round((0.95 - low) / 0.05) + 1))


def range_numbers(
    queries: Sequence[Query], name: str, lowest: float, with_miou: bool, strict: bool
) -> tuple[dict[str, Any] | None, dict[Any, dict[str, Any]]]:
    """The numbers of one range and those behind each query; None if no query has a truth in the range.

    `lowest`: the lowest threshold of R1.
    """
    kept = [(query, within) for query in queries if len(within := in_range(query, name))]
    if not kept:
        return None, {}
    chosen, truths = [query for query, _ in kept], [within for _, within in kept]
    precision, tops = average_precision(chosen, truths, strict), top1_iou(chosen, truths, strict)
    at_threshold = precision.mean(0)
    means = dict(zip(map(str, AP_THRESHOLDS), map(percent, at_threshold), strict=True))
    numbers: dict[str, Any] = {"MR-mIoU": percent(float(np.mean(tops)))} if with_miou else {}
    numbers["MR-mAP"] = means | {"average": percent(float(np.mean(at_threshold)))}
    numbers["MR-R1"] = {str(t): percent(float(np.mean(tops >= t))) for t in r1_thresholds(lowest)}
    names = [str(t) for t in AP_THRESHOLDS]
    per_query = {
        query.qid: {"top1_iou": top, "ap_at_iou": dict(zip(names, row, strict=True))}
        for query, top, row in zip(chosen, tops.tolist(), precision.tolist(), strict=True)
    }
    return numbers, per_query
