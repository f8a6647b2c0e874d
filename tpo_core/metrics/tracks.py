"""Overlap of box tracks on the frames where the object is there, in the manner of GOT-10k's AO.

Not the official number: GOT-10k skips its first frame, clips boxes to the image and pools the frames of all tracks.
Here every labelled frame counts and boxes stay as they are.
"""

import numpy as np

from tpo_core.metrics import boxes


def mean_iou(prediction_T4: np.ndarray, truth_T4: np.ndarray) -> float:
    """Mean IoU over the frames where the truth is visible (not NaN), in [0, 1]; NaN for a track that is never visible.

    Both are xyxy in pixels. A frame without a predicted box (NaN) has IoU 0 and counts.
    """
    truth = np.asarray(truth_T4, np.float64)
    visible = ~np.isnan(truth).any(axis=1)
    return boxes.miou(boxes.iou(np.asarray(prediction_T4)[visible], truth[visible]))
