"""Moment retrieval in a few numbers: R1@t and mIoU by the overlaps of the evaluator that CG-DETR and TPO use.

Moments are (start, end) in seconds. The whole set of its numbers is in retrieval.py.
"""

from collections.abc import Sequence

import numpy as np

from tpo_core.metrics import retrieval

THRESHOLDS = (0.3, 0.5, 0.7)


def tiou(predictions_s: np.ndarray, truths_s: np.ndarray) -> np.ndarray:
    """Overlap over the hull, max(end) - min(start), of moments (..., 2) that broadcast; (...) float64; 0/0 is 0.

    A NaN or an end before its start in a prediction gives 0.
    """
    p, g = np.asarray(predictions_s, np.float64), np.asarray(truths_s, np.float64)
    return np.where(p[..., 1] >= p[..., 0], retrieval.hull_iou(p, g), 0.0)


def top1_tiou(prediction_k2: np.ndarray, truths_m2: np.ndarray) -> float:
    """IoU of the first listed moment with the truth that it overlaps most; 0 when nothing was predicted.

    The truth is chosen by plain IoU (inter / (|p| + |g| - inter), the first on ties), the value is over the hull.
    """
    prediction, truths = np.asarray(prediction_k2, np.float64), np.asarray(truths_m2, np.float64)
    if prediction.size == 0:
        return 0.0
    top = prediction.reshape(len(prediction), -1)[0, :2]
    chosen = truths[int(np.argmax(np.nan_to_num(retrieval.plain_iou(top, truths), nan=-1.0)))]
    return float(tiou(top, chosen))


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
