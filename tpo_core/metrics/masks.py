"""Region similarity J and contour accuracy F of masks, as the davis2017-evaluation code defines them.

Masks are bool (..., H, W), one or a stack; the result has the leading shape. `void` marks pixels that do not count.
"""

import math
from dataclasses import dataclass

import numpy as np

from tpo_core.metrics import bits

BOUND_FRACTION = 0.008  # contour tolerance as a fraction of the image diagonal
DECAY_BINS = 4


def jaccard(predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """J = |P and G| / |P or G| outside void, (...) float64; both empty is 1."""
    p, g = _apply_void(predictions, truths, void)
    shape = p.shape[:-2]
    planes = [(bits.pack(a), bits.pack(b)) for a, b in zip(_frames(p), _frames(g), strict=True)]
    return np.array([_ratio(int(bits.count(a & b)), int(bits.count(a | b))) for a, b in planes]).reshape(shape)


def boundary_f(
    predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None = None, bound: float = BOUND_FRACTION
) -> np.ndarray:
    """F of the contours, (...) float64: both without contour is 1, one without is 0.

    A mask that fills the image has no contour, so a full truth against an empty prediction gives F = 1 (and J = 0).
    Void is cut out of both masks first, which makes contours along its rim.
    """
    p, g = _apply_void(predictions, truths, void)
    flat = [contour_f(shape_of(a, bound), shape_of(b, bound)) for a, b in zip(_frames(p), _frames(g), strict=True)]
    return np.array(flat).reshape(p.shape[:-2])


@dataclass(frozen=True)
class Shape:
    """What J and F need of one mask, as planes of bits; made once for a mask that is compared with several."""

    region: np.ndarray
    contour: np.ndarray
    near: np.ndarray
    area: int
    length: int


def shape_of(mask_HW: np.ndarray, bound: float = BOUND_FRACTION) -> Shape:
    """The region, its contour, and the pixels within the contour tolerance of that."""
    height, width = mask_HW.shape
    region = bits.pack(mask_HW)
    contour = bits.boundary(region, width)
    near = bits.dilate(contour, width, boundary_radius(height, width, bound))
    return Shape(region, contour, near, int(bits.count(region)), int(bits.count(contour)))


def region_j(prediction: Shape, truth: Shape) -> float:
    """J of one pair."""
    both = int(bits.count(prediction.region & truth.region))
    return _ratio(both, prediction.area + truth.area - both)


def contour_f(prediction: Shape, truth: Shape) -> float:
    """F of one pair."""
    if prediction.length == 0 or truth.length == 0:
        return float(prediction.length == truth.length)
    precision = int(bits.count(prediction.contour & truth.near)) / prediction.length
    recall = int(bits.count(truth.contour & prediction.near)) / truth.length
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def score(predictions: list[np.ndarray], truths: list[np.ndarray], voids: list[np.ndarray | None]) -> dict[str, float]:
    """`j`, `f` and `j&f` in [0, 1]: mean over the frames of an object, then over objects (the rule of MeViS).

    predictions[i], truths[i], voids[i]: (T, H, W) or (H, W) of object i. All frames count.
    """
    triples = list(zip(predictions, truths, voids, strict=True))
    j = float(np.mean([np.mean(jaccard(p, g, v)) for p, g, v in triples])) if triples else float("nan")
    f = float(np.mean([np.mean(boundary_f(p, g, v)) for p, g, v in triples])) if triples else float("nan")
    return {"j": j, "f": f, "j&f": (j + f) / 2}


def statistics(frames_T: np.ndarray, official_bins: bool = False) -> tuple[float, float, float]:
    """Mean, recall (share above .5) and decay (mean of the first of 4 bins - mean of the last) of J or F over frames.

    NaN frames leave the mean and the decay, and count as a miss in the recall. The bins share their edges. The official
    code keeps the edges in 8 bits (`official_bins`), so that beyond 256 frames its decay is NaN or of wrong bins.
    """
    values = np.asarray(frames_T, np.float64)
    edges = np.round(np.linspace(1, len(values), DECAY_BINS + 1) + 1e-10).astype(int) - 1
    if official_bins:
        edges = edges % 256
    first, last = values[edges[0] : edges[1] + 1], values[edges[-2] : edges[-1] + 1]
    recall = float(np.mean(values > 0.5)) if len(values) else float("nan")
    return nanmean(values), recall, nanmean(first) - nanmean(last)


def nanmean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN of nothing."""
    there = values[~np.isnan(values)]
    return float(np.mean(there)) if len(there) else float("nan")


def boundary_radius(height: int, width: int, bound: float = BOUND_FRACTION) -> float:
    """Contour tolerance in pixels; a `bound` of 1 or more is taken as pixels."""
    return bound if bound >= 1 else math.ceil(bound * math.sqrt(height**2 + width**2))


def boundary(mask_HW: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour, bool (H, W)."""
    width = mask_HW.shape[1]
    return bits.unpack(bits.boundary(bits.pack(mask_HW.astype(bool)), width), width)


def dilate(mask_HW: np.ndarray, radius: float) -> np.ndarray:
    """Every pixel within `radius` (Euclidean) of a set one, bool (H, W); nothing beyond the image."""
    width = mask_HW.shape[1]
    return bits.unpack(bits.dilate(bits.pack(mask_HW.astype(bool)), width, radius), width)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _frames(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(-1, *masks.shape[-2:])


def _apply_void(predictions: np.ndarray, truths: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    p, g = np.asarray(predictions).astype(bool, copy=False), np.asarray(truths).astype(bool, copy=False)
    assert p.shape == g.shape, f"prediction {p.shape} and truth {g.shape} differ in shape"
    if void is None:
        return p, g
    counts = ~np.asarray(void).astype(bool)
    return p & counts, g & counts
