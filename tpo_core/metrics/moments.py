"""Moment retrieval: temporal IoU, R1@t and mIoU as the evaluator that CG-DETR and TPO use computes them.

Moments are (start, end) in seconds.
"""

from collections.abc import Sequence

import numpy as np

THRESHOLDS = (0.3, 0.5, 0.7)
# Lengths in seconds, (exclusive, inclusive], of the truth windows that each range keeps (QVHighlights evaluator).
RANGES_S = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}


def tiou(predictions_s: np.ndarray, truths_s: np.ndarray) -> np.ndarray:
    """Overlap over the hull, max(end) - min(start), of moments (..., 2) that broadcast; (...) float64; 0/0 is 0.

    A NaN or an end before its start in a prediction gives 0.
    """
    p, g = np.asarray(predictions_s, np.float64), np.asarray(truths_s, np.float64)
    inter = np.maximum(np.minimum(p[..., 1], g[..., 1]) - np.maximum(p[..., 0], g[..., 0]), 0.0)
    hull = np.maximum(p[..., 1], g[..., 1]) - np.minimum(p[..., 0], g[..., 0])
    sound = (hull > 0) & (p[..., 1] >= p[..., 0])
    return np.divide(inter, hull, out=np.zeros(np.shape(hull)), where=sound)


def top1_tiou(prediction_k2: np.ndarray, truths_m2: np.ndarray) -> float:
    """IoU of the first listed moment with the truth that it overlaps most; 0 when nothing was predicted.

    The truth is chosen by plain IoU (inter / (|p| + |g| - inter), the first on ties), the value is over the hull.
    """
    prediction, truths = np.asarray(prediction_k2, np.float64), np.asarray(truths_m2, np.float64)
    if prediction.size == 0:
        return 0.0
    top = prediction.reshape(len(prediction), -1)[0, :2]
    inter = np.maximum(np.minimum(top[1], truths[:, 1]) - np.maximum(top[0], truths[:, 0]), 0.0)
    union = (top[1] - top[0]) + (truths[:, 1] - truths[:, 0]) - inter
    plain = np.divide(inter, union, out=np.zeros(len(truths)), where=union > 0)
    return float(tiou(top, truths[int(np.argmax(plain))]))


def in_range(truths_m2: np.ndarray, name: str) -> np.ndarray:
    """The truth moments whose length falls in a range of RANGES_S."""
    low, high = RANGES_S[name]
    lengths = truths_m2[:, 1] - truths_m2[:, 0]
    return truths_m2[(lengths > low) & (lengths <= high)]


def recall_at(tiou_N: np.ndarray, threshold: float) -> float:
    """R1: share of queries whose top moment has IoU >= threshold, in [0, 1]; NaN of none."""
    return float(np.mean(np.asarray(tiou_N) >= threshold)) if len(tiou_N) else float("nan")


def score(
    predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """`r1@t` and `miou` in [0, 1] over all queries; predictions[i]: (k, >= 2), best first; truths[i]: (m, 2)."""
    ious = np.array([top1_tiou(p, g) for p, g in zip(predictions, truths, strict=True)])
    metrics = {f"r1@{t:g}": recall_at(ious, t) for t in thresholds}
    return metrics | {"miou": float(np.mean(ious)) if len(ious) else float("nan")}
