"""Region similarity J and contour accuracy F of masks, as the davis2017-evaluation code defines them.

Masks are bool (..., H, W), one or a stack; the result has the leading shape. `void` marks pixels that do not count.
"""

import math

import numpy as np

BOUND_FRACTION = 0.008  # contour tolerance as a fraction of the image diagonal


def jaccard(predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """J = |P and G| / |P or G| outside void, (...) float64; both empty is 1."""
    p, g = _apply_void(predictions, truths, void)
    inter, union = np.sum(p & g, axis=(-2, -1)), np.sum(p | g, axis=(-2, -1))
    return np.divide(inter, union, out=np.ones(np.shape(union)), where=union > 0)


def boundary_f(
    predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None = None, bound: float = BOUND_FRACTION
) -> np.ndarray:
    """F of the contours, (...) float64: both without contour is 1, one without is 0.

    A mask that fills the image has no contour, so a full truth against an empty prediction gives F = 1 (and J = 0).
    Void is cut out of both masks first, which makes contours along its rim.
    """
    p, g = _apply_void(predictions, truths, void)
    height, width = p.shape[-2:]
    radius = boundary_radius(height, width, bound)
    flat = [
        _f_of_one(a, b, radius) for a, b in zip(p.reshape(-1, height, width), g.reshape(-1, height, width), strict=True)
    ]
    return np.array(flat).reshape(p.shape[:-2])


def score(predictions: list[np.ndarray], truths: list[np.ndarray], voids: list[np.ndarray | None]) -> dict[str, float]:
    """`j`, `f` and `j&f` in [0, 1]: mean over the frames of an object, then over objects (the rule of MeViS).

    predictions[i], truths[i], voids[i]: (T, H, W) or (H, W) of object i. All frames count.
    """
    triples = list(zip(predictions, truths, voids, strict=True))
    j = float(np.mean([np.mean(jaccard(p, g, v)) for p, g, v in triples])) if triples else float("nan")
    f = float(np.mean([np.mean(boundary_f(p, g, v)) for p, g, v in triples])) if triples else float("nan")
    return {"j": j, "f": f, "j&f": (j + f) / 2}


def boundary_radius(height: int, width: int, bound: float = BOUND_FRACTION) -> float:
    """Contour tolerance in pixels; a `bound` of 1 or more is taken as pixels."""
    return bound if bound >= 1 else math.ceil(bound * math.sqrt(height**2 + width**2))


def boundary(mask_HW: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour, bool (H, W).

    The last row looks right only, the last column down only, their corner nowhere.
    """
    mask = mask_HW.astype(bool)
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilate(mask_HW: np.ndarray, radius: float) -> np.ndarray:
    """Every pixel within `radius` (Euclidean) of a set one, bool (H, W); nothing beyond the image.

    A disk is a stack of horizontal bars: each row is widened by a running sum, then shifted to its place.
    """
    height, width = mask_HW.shape
    sums = np.concatenate([np.zeros((height, 1), np.int64), np.cumsum(mask_HW, axis=1)], axis=1)
    columns = np.arange(width)
    wide = np.zeros((height, width), bool)
    reach = math.floor(radius)
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        half = math.isqrt(math.floor(radius**2 - dy**2))
        bar = sums[:, np.minimum(columns + half + 1, width)] > sums[:, np.maximum(columns - half, 0)]
        wide[max(dy, 0) : height + min(dy, 0)] |= bar[max(-dy, 0) : height - max(dy, 0)]
    return wide


def _f_of_one(prediction_HW: np.ndarray, truth_HW: np.ndarray, radius: float) -> float:
    predicted, true = boundary(prediction_HW), boundary(truth_HW)
    n_predicted, n_true = int(predicted.sum()), int(true.sum())
    if n_predicted == 0 or n_true == 0:
        return float(n_predicted == n_true)
    precision = int((predicted & dilate(true, radius)).sum()) / n_predicted
    recall = int((true & dilate(predicted, radius)).sum()) / n_true
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _apply_void(predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    p, g = np.asarray(predictions).astype(bool), np.asarray(truths).astype(bool)
    assert p.shape == g.shape, f"prediction {p.shape} and truth {g.shape} differ in shape"
    if void is None:
        return p, g
    counts = ~np.asarray(void).astype(bool)
    return p & counts, g & counts
