"""Answers that never look: one constant taken from the truths of part `train`, scored on held-out truths.

A trained model that does not clearly beat these has learned nothing from the pixels. The metrics carry the names that
the model's own have, without the part: `region/acc@0.5` and so on.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from tpo_core.metrics import answers, boxes, masks, moments, tracks


def constant_box(
    train_boxes_N4: np.ndarray, train_wh_N2: np.ndarray, boxes_M4: np.ndarray, wh_M2: np.ndarray
) -> dict[str, float]:
    """The mean box of train, relative to the image, as every answer. Boxes xyxy and sizes in pixels."""
    found = fit_box(train_boxes_N4, train_wh_N2) * np.tile(np.asarray(wh_M2, np.float64), 2)
    overlaps = boxes.iou(found, boxes_M4)
    return {"region/acc@0.5": boxes.acc_at(overlaps), "region/miou": boxes.miou(overlaps)}


def constant_moment(
    train_spans: Sequence[np.ndarray],
    train_durations_s: Sequence[float],
    spans: Sequence[np.ndarray],
    durations_s: Sequence[float],
) -> dict[str, float]:
    """The median centre and length of train, relative to the clip. spans[i]: (k, 2) seconds; durations in seconds."""
    start, end = fit_moment(train_spans, train_durations_s)
    return _moments([np.array([[start * duration, end * duration]]) for duration in durations_s], spans)


def whole_clip(spans: Sequence[np.ndarray], durations_s: Sequence[float]) -> dict[str, float]:
    """From 0 to the end of the clip as every answer."""
    return _moments([np.array([[0.0, duration]]) for duration in durations_s], spans)


def constant_mask(
    train_boxes_N4: np.ndarray, train_wh_N2: np.ndarray, truths: Sequence[np.ndarray]
) -> dict[str, float]:
    """The filled mean box of train on every frame. truths[i]: (T, H, W) bool; an answer of a mask fills its box."""
    box = fit_box(train_boxes_N4, train_wh_N2)
    found = []
    for truth in truths:
        height, width = truth.shape[-2:]
        x1, y1, x2, y2 = np.round(box * (width, height, width, height)).astype(int)
        mask = np.zeros(truth.shape, bool)
        mask[..., y1:y2, x1:x2] = True
        found.append(mask)
    return {f"mask/{name}": value for name, value in masks.score(found, list(truths), [None] * len(found)).items()}


def no_mask(truths: Sequence[np.ndarray]) -> dict[str, float]:
    """An empty mask on every frame, which is right where the object is absent. truths as of `constant_mask`."""
    found = [np.zeros_like(truth) for truth in truths]
    return {f"mask/{name}": value for name, value in masks.score(found, list(truths), [None] * len(found)).items()}


def constant_track(
    train_boxes_N4: np.ndarray, train_wh_N2: np.ndarray, truths: Sequence[np.ndarray], wh_M2: np.ndarray
) -> dict[str, float]:
    """The mean box of train on every frame. truths[i]: (T, 4) xyxy pixels, NaN where the object is absent."""
    box = fit_box(train_boxes_N4, train_wh_N2)
    values = [
        tracks.mean_iou(np.tile(box * np.tile(wh, 2), (len(truth), 1)), truth)
        for truth, wh in zip(truths, np.asarray(wh_M2, np.float64), strict=True)
    ]
    return {"track/miou": boxes.miou(np.array(values))}


def majority_answer(
    train_types: Sequence[str], train_answers: Sequence[str], types: Sequence[str], truths: Sequence[str]
) -> dict[str, float]:
    """The most frequent answer of train to each type of question (of all questions for a type that train lacks)."""
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, answer in zip(train_types, train_answers, strict=True):
        by_type[kind][answers.normalise(answer)] += 1
    overall = sum(by_type.values(), Counter[str]())
    found = [by_type.get(kind, overall).most_common(1)[0][0] for kind in types]
    return {f"qa/{name}": value for name, value in answers.score(found, truths).items()}


def fit_box(boxes_N4: np.ndarray, wh_N2: np.ndarray) -> np.ndarray:
    """(4,) mean xyxy as fractions of width and height; rows with NaN (absent) are left out. ValueError for none."""
    relative = np.asarray(boxes_N4, np.float64) / np.tile(np.asarray(wh_N2, np.float64), 2)
    relative = relative[~np.isnan(relative).any(axis=1)]
    if not len(relative):
        raise ValueError("no box in train to take the mean of")
    return np.clip(relative.mean(axis=0), 0.0, 1.0)


def fit_moment(spans: Sequence[np.ndarray], durations_s: Sequence[float]) -> tuple[float, float]:
    """Start and end as fractions of the clip, from the median centre and the median length of all moments."""
    relative = np.concatenate([np.asarray(s, np.float64) / d for s, d in zip(spans, durations_s, strict=True)])
    centre, length = np.median(relative.mean(axis=1)), np.median(relative[:, 1] - relative[:, 0])
    return max(0.0, float(centre - length / 2)), min(1.0, float(centre + length / 2))


def _moments(found: Sequence[np.ndarray], spans: Sequence[np.ndarray]) -> dict[str, float]:
    return {f"moment/{name}": value for name, value in moments.score(found, spans).items()}
