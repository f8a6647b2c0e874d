"""Success and precision of one track as three codes measure them on LaSOT. Boxes are xywh, (T, 4).

All of them put the truth into the first frame and count it. What is degenerate stays as it is here: a scorer that
rejects a prediction names its frames in `rejected_T`, and they are misses at every threshold.
"""

from dataclasses import dataclass

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import boxes

OVERLAPS = np.arange(21) * 0.05
ERRORS_PX = np.arange(51, dtype=np.float64)
NORMALIZED_ERRORS = np.arange(51) / 100
MISS = -1.0  # an overlap that is above no threshold


@dataclass(frozen=True)
class Curves:
    """Shares of frames, by OVERLAPS, ERRORS_PX and NORMALIZED_ERRORS; `overlap` is the mean IoU of valid frames."""

    success: np.ndarray
    precision: np.ndarray
    norm_precision: np.ndarray
    overlap: float


def pytracking(
    prediction: np.ndarray,
    truth: np.ndarray,
    visible_T: np.ndarray,
    rejected_T: np.ndarray,
    exclude_invalid_frames: bool,
) -> Curves:
    """Absent frames are misses that count; an invalid truth that is visible is a miss but for the normalised error.

    The curves are float32, as there. With `exclude_invalid_frames` the denominator is the number of valid frames.
    """
    valid = (truth > 0).all(axis=1) & visible_T
    found = _with_first(prediction, truth)
    overlap = np.where(valid, boxes.pixel_iou(found, truth), MISS)
    error = np.where(valid, boxes.center_error(found, truth), np.inf)
    normalized = np.where(valid, boxes.normalized_center_error(found, truth), -1.0)
    normalized[~visible_T] = np.inf
    overlap, error, normalized = _miss(rejected_T, overlap, error, normalized)
    frames = np.float32(valid.sum() if exclude_invalid_frames else len(truth))
    success, precision, norm = (
        hits.astype(np.float32) / frames for hits in _hits(overlap, error, normalized, NORMALIZED_ERRORS)
    )
    kept = overlap[valid]
    return Curves(success, precision, norm, float(np.mean(kept)) if len(kept) else float("nan"))


def matlab(prediction: np.ndarray, truth: np.ndarray, visible_T: np.ndarray, rejected_T: np.ndarray) -> Curves:
    """Absent frames are misses that count; an invalid truth that is visible is a hit of both errors (they are -1)."""
    found, true = _with_first(prediction, truth)[visible_T], truth[visible_T]
    valid = (true > 0).all(axis=1)
    overlap = np.where(valid, boxes.pixel_iou(found, true), MISS)
    error = np.where(valid, boxes.center_error(found, true), -1.0)
    normalized = np.where(valid, boxes.normalized_center_error(found, true), -1.0)
    overlap, error, normalized = _miss(rejected_T[visible_T], overlap, error, normalized)
    frames = len(truth) + np.finfo(float).eps
    success, precision, norm = (hits / frames for hits in _hits(overlap, error, normalized, NORMALIZED_ERRORS))
    return Curves(success, precision, norm, float(np.mean(overlap[valid])) if valid.any() else float("nan"))


def toolkit(prediction: np.ndarray, truth: np.ndarray, rejected_T: np.ndarray) -> Curves:
    """The GOT-10k toolkit: every frame is scored, absent or not."""
    found = _with_first(prediction, truth)
    overlap = boxes.toolkit_iou(found, truth)
    error = boxes.center_error(found, truth)
    normalized = boxes.toolkit_normalized_center_error(found, truth)
    overlap, error, normalized = _miss(rejected_T, overlap, error, normalized)
    success, precision, norm = (
        hits / len(truth) for hits in _hits(overlap, error, normalized, np.linspace(0, 0.5, len(NORMALIZED_ERRORS)))
    )
    return Curves(success, precision, norm, float(np.mean(np.maximum(overlap, 0.0))))


def fill_pytracking(prediction: np.ndarray, truth: np.ndarray, name: str) -> np.ndarray:
    """A result as pytracking takes it: a box without width or height becomes the one before it, too long is cut."""
    if np.isnan(prediction).any() or (prediction[:, 2:] < 0).any():
        raise TpoError(f"{name}: pytracking refuses a NaN or a negative size")
    if len(prediction) < len(truth):
        raise TpoError(f"{name}: {len(prediction)} boxes for {len(truth)} frames; pytracking refuses that")
    filled = prediction.copy()
    for frame in range(1, len(filled)):
        if (filled[frame, 2:] == 0).any():
            filled[frame] = filled[frame - 1]
    return filled[: len(truth)]


def fill_matlab(prediction: np.ndarray, truth: np.ndarray, name: str) -> np.ndarray:
    """A result as the toolkit of LaSOT takes it: a NaN or a size <= 0 becomes the box before it, too long is cut."""
    if len(prediction) < len(truth):
        raise TpoError(f"{name}: {len(prediction)} boxes for {len(truth)} frames; the toolkit of LaSOT refuses that")
    filled = prediction[: len(truth)].copy()
    for frame in range(1, len(filled)):
        bad = np.isnan(filled[frame]).any() or (filled[frame, 2:] <= 0).any()
        if bad and not np.isnan(truth[frame]).any():
            filled[frame] = filled[frame - 1]
    return filled


def _with_first(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.concatenate([truth[:1], prediction[1:]])


def _miss(
    rejected_T: np.ndarray, overlap: np.ndarray, error: np.ndarray, normalized: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.where(rejected_T, MISS, overlap),
        np.where(rejected_T, np.inf, error),
        np.where(rejected_T, np.inf, normalized),
    )


def _hits(
    overlap: np.ndarray, error: np.ndarray, normalized: np.ndarray, normalized_thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames above each overlap, and at most each error."""
    return (
        (overlap[:, None] > OVERLAPS).sum(axis=0),
        (error[:, None] <= ERRORS_PX).sum(axis=0),
        (normalized[:, None] <= normalized_thresholds).sum(axis=0),
    )
