"""What is done to predicted windows before QVHighlights is scored; it is part of the numbers that are reported.

As in https://github.com/jayleicn/moment_detr (PostProcessorDETR, temporal_nms). Windows are rows (start_s, end_s,
score), of float32 until they are written with four decimals.
"""

from collections.abc import Sequence

import numpy as np

Rows = list[list[float]]


def within(windows_k3: np.ndarray, low_s: float, high_s: float) -> np.ndarray:
    """Starts and ends cut to [low, high]."""
    rows = np.array(windows_k3, np.float32)
    rows[:, :2] = np.clip(rows[:, :2], np.float32(low_s), np.float32(high_s))
    return rows


def on_clips(windows_k3: np.ndarray, clip_s: float) -> np.ndarray:
    """Starts and ends at the nearest multiple of a clip; halves to the even one."""
    rows = np.array(windows_k3, np.float32)
    rows[:, :2] = np.round(rows[:, :2] / np.float32(clip_s)) * np.float32(clip_s)
    return rows


def of_length(windows_k3: np.ndarray, shortest_s: float, longest_s: float) -> np.ndarray:
    """Windows that are shorter or longer (reversed ones are shorter) get that length around their centre."""
    rows = np.array(windows_k3, np.float32)
    lengths = rows[:, 1] - rows[:, 0]
    for length_s, wrong in ((shortest_s, lengths < shortest_s), (longest_s, lengths > longest_s)):
        centre, half = (rows[wrong, 0] + rows[wrong, 1]) / 2, np.float32(length_s / 2)
        rows[wrong, 0], rows[wrong, 1] = centre - half, centre + half
    return rows


def written(windows_k3: np.ndarray) -> Rows:
    """As a submission has them, with four decimals."""
    return [[float(f"{value:.4f}") for value in row] for row in windows_k3.tolist()]


def suppressed(windows_k3: Sequence[Sequence[float]], threshold: float, keep: int) -> Rows:
    """By falling score, those that overlap no better one by more than the threshold (over the hull), `keep` at most.

    A single window stays as it is.
    """
    left = sorted((list(window) for window in windows_k3), key=lambda window: window[2], reverse=True)
    kept: Rows = []
    while left and len(kept) < keep:
        best, *others = left
        kept.append(best)
        left = [other for other in others if not _overlap(best, other) > threshold]
    return kept


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    inter = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    hull = max(one[1], other[1]) - min(one[0], other[0])
    return inter / hull if hull != 0 else 0.0
