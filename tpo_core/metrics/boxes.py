"""Overlap of boxes. Boxes are (x1, y1, x2, y2); pixels, 0-based, half-open."""

import numpy as np

# What is degenerate has its NaN or infinity in the result, where it is dealt with; a warning would tell nobody more.
QUIETLY = np.errstate(divide="ignore", invalid="ignore", over="ignore")


@QUIETLY
def iou(predictions_N4: np.ndarray, truths_N4: np.ndarray, dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Intersection over union of row-aligned boxes, (N,) in [0, 1], computed in `dtype`.

    A prediction with a NaN or with its corners reversed has no area: IoU 0, a miss that still counts. So has a pair of
    two empty boxes (0/0), and a box that reaches to infinity is a miss too.
    """
    a, b = np.asarray(predictions_N4, dtype), np.asarray(truths_N4, dtype)
    inter = _area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1))
    union = _area(a) + _area(b) - inter
    return _ratio(inter, union)


@QUIETLY
def giou(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """Generalised IoU of row-aligned boxes, (N,) in [-1, 1], in the precision of the input (MDETR uses float32).

    A box with a NaN or with its corners reversed has no area; a hull of infinite area gives NaN, as in MDETR.
    """
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
    """Areas; 0 where a side is negative, none or NaN, however long the other is."""
    sides = boxes_N4[:, 2:] - boxes_N4[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    return np.where((sides > 0).all(axis=1), areas, 0).astype(boxes_N4.dtype)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


@QUIETLY
def pixel_iou(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """IoU of xywh boxes as LaSOT and pytracking write it, with corners x + w - 1, (N,); unchecked, NaN for 0/0."""
    p, g = predictions_N4, truths_N4
    low = np.maximum(p[:, :2], g[:, :2])
    high = np.minimum(p[:, :2] + p[:, 2:] - 1.0, g[:, :2] + g[:, 2:] - 1.0)
    inter = np.prod(np.maximum(high - low + 1.0, 0.0), axis=1)
    return inter / (np.prod(p[:, 2:], axis=1) + np.prod(g[:, 2:], axis=1) - inter)


@QUIETLY
def toolkit_iou(
    predictions_N4: np.ndarray, truths_N4: np.ndarray, bound_wh: tuple[float, float] | None = None
) -> np.ndarray:
    """IoU of xywh boxes as the GOT-10k toolkit writes it, (N,) in [0, 1]: over union + eps, NaN for a NaN.

    With a bound both boxes are clipped to the image, the corner first and then the size, which moves a box that starts
    left of the image to the right instead of cutting it.
    """
    p, g = np.array(predictions_N4, np.float64), np.array(truths_N4, np.float64)
    if bound_wh is not None:
        for one in (p, g):
            one[:, :2] = np.clip(one[:, :2], 0, bound_wh)
            one[:, 2:] = np.clip(one[:, 2:], 0, np.array(bound_wh) - one[:, :2])
    low, high = np.maximum(p[:, :2], g[:, :2]), np.minimum(p[:, :2] + p[:, 2:], g[:, :2] + g[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(p[:, 2:], axis=1) + np.prod(g[:, 2:], axis=1) - inter
    return np.clip(inter / (union + np.finfo(float).eps), 0.0, 1.0)


@QUIETLY
def center_error(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """Distance of the centres x + (w - 1)/2 of xywh boxes, (N,)."""
    return _length(_centers(predictions_N4) - _centers(truths_N4))


@QUIETLY
def normalized_center_error(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """The same with each axis in sizes of the truth, as LaSOT and pytracking divide, (N,); inf or NaN for size 0."""
    return _length(_centers(predictions_N4) / truths_N4[:, 2:] - _centers(truths_N4) / truths_N4[:, 2:])


@QUIETLY
def toolkit_normalized_center_error(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """The same as the GOT-10k toolkit divides, (N,): sizes are 1 px at least."""
    return _length((_centers(predictions_N4) - _centers(truths_N4)) / np.maximum(truths_N4[:, 2:], 1.0))


def _centers(boxes_N4: np.ndarray) -> np.ndarray:
    return boxes_N4[:, :2] + (boxes_N4[:, 2:] - 1.0) / 2


def _length(vectors_N2: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(vectors_N2**2, axis=1))


@QUIETLY
def unchecked_iou(predictions_N4: np.ndarray, truths_N4: np.ndarray) -> np.ndarray:
    """IoU as torchvision writes it, (N,) in the precision of the input: areas may be negative, 0/0 is NaN."""
    a, b = predictions_N4, truths_N4
    inter = np.prod(np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0), axis=1)
    areas = [np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (a, b)]
    return inter / (areas[0] + areas[1] - inter)
