"""Overlap of boxes. Boxes are (x1, y1, x2, y2); pixels, 0-based, half-open."""

import numpy as np


def iou(predictions_N4: np.ndarray, truths_N4: np.ndarray, dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Intersection over union of row-aligned boxes, (N,) in [0, 1], computed in `dtype`.

    A prediction with a NaN or with its corners reversed has no area: IoU 0, a miss that still counts. So has a pair of
    two empty boxes (0/0).
    """
    a, b = np.asarray(predictions_N4, dtype), np.asarray(truths_N4, dtype)
    inter = _area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1))
    union = _area(a) + _area(b) - inter
    return _ratio(inter, union)


def giou(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """Generalised IoU of row-aligned boxes, (N,) in [-1, 1], in the precision of the input (MDETR uses float32)."""
    a, b = np.asarray(predictions_N4), np.asarray(truths_N4)
    inter = _area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1))
    hull = _area(np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1))
    union = _area(a) + _area(b) - inter
    return _ratio(inter, union) - _ratio(hull - union, hull)


def acc_at(iou_N: np.ndarray, threshold: float = 0.5) -> float:
    """Share of pairs with IoU >= threshold, in [0, 1]; NaN of none."""
    return float(np.mean(np.asarray(iou_N) >= threshold)) if len(iou_N) else float("nan")


def miou(iou_N: np.ndarray) -> float:
    """Mean IoU in [0, 1]; NaN of none."""
    return float(np.mean(iou_N)) if len(iou_N) else float("nan")


def xywh_to_xyxy(boxes_N4: np.ndarray) -> np.ndarray:
    """(left, top, width, height) to (x1, y1, x2, y2)."""
    boxes = np.asarray(boxes_N4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _area(boxes_N4: np.ndarray) -> np.ndarray:
    """Areas; 0 where a side is negative or NaN."""
    sides = boxes_N4[:, 2:] - boxes_N4[:, :2]
    sides = np.where(sides > 0, sides, 0).astype(boxes_N4.dtype)
    return sides[:, 0] * sides[:, 1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
