"""Boxes as they come in rows: lists with null for what is absent, maybe damaged, turned into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tpo_core.evaluation.report.entries import Row
from tpo_core.metrics import boxes

NOWHERE = np.full(4, np.nan)


def as_box(value: Any) -> np.ndarray:
    """(4,) xyxy pixels, all nan for null and for what is no box of four finite numbers."""
    try:
        box = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return NOWHERE
    return box if box.shape == (4,) and np.isfinite(box).all() else NOWHERE


def as_track(value: Any) -> np.ndarray:
    """(T, 4) of a list of boxes; (0, 4) for what is no list."""
    return np.array([as_box(box) for box in value]).reshape(-1, 4) if isinstance(value, list) else np.empty((0, 4))


def boxes_T4(row: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """Prediction and truth on the frames where the truth is visible, nan where no box was found; None where the row
    holds no such tracks. A prediction of null is a track of no boxes."""
    true = as_track(row.truth)
    found = np.full_like(true, np.nan) if row.prediction is None else as_track(row.prediction)
    visible = np.isfinite(true).all(axis=1)
    return (found[visible], true[visible]) if len(found) == len(true) and visible.any() else None


def centre_errors(found_T4: np.ndarray, true_T4: np.ndarray) -> np.ndarray:
    """(T,) distances of the centres in sizes of the true box; infinite where no box was found."""
    found_xywh, true_xywh = (np.column_stack([b[:, :2], b[:, 2:] - b[:, :2]]) for b in (found_T4, true_T4))
    errors = boxes.normalized_center_error(found_xywh, true_xywh)
    return np.where(np.isfinite(errors), errors, np.inf)
