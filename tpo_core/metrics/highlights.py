"""Highlight detection as the QVHighlights evaluator defines it: HIT@1 and average precision of saliency scores.

Clips are two seconds long. Three annotators score each clip from 0 to 4; a clip is positive from 2 (Fair), 3 (Good) or
4 (VeryGood, the headline number) on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpo_core.metrics.retrieval import percent

CLIP_S = 2
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}


def truth_scores(duration_s: float, clip_ids: Sequence[int], scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Scores of all clips by annotator, (clips, 3); clips that are not listed score 0.

    ValueError when an id is no clip of the video, or the scores are not three a listed clip.
    """
    table = np.zeros((int(duration_s / CLIP_S), 3))
    ids, given = np.asarray(clip_ids, np.int64), np.asarray(scores, np.float64)
    if len(table) == 0:
        raise ValueError(f"a video of {duration_s:g} s has no clip of {CLIP_S} s")
    if len(ids) and (ids.min() < 0 or ids.max() >= len(table)):
        raise ValueError(f"relevant_clip_ids must lie in 0..{len(table) - 1}")
    if len(ids) and given.shape != (len(ids), 3):
        raise ValueError("saliency_scores must be three numbers for each of relevant_clip_ids")
    if len(ids):
        table[ids] = given
    return table


def average_precisions(truth_CA: np.ndarray, scores_C: np.ndarray) -> list[float]:
    """For each column of truth, the mean over recall steps of the highest precision at that or a lower threshold.

    Nothing positive is 0, nothing negative 1. Equal scores are one threshold.
    """
    order = np.argsort(-scores_C, kind="stable")
    ranked = scores_C[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(order) - 1)  # last place of each threshold
    found = np.cumsum(truth_CA[order], axis=0)[ends][::-1]
    precision = np.maximum.accumulate(found / (ends + 1)[::-1, None], axis=0)
    steps = found.copy()
    steps[:-1] -= found[1:]
    positives = found[0]
    return [
        float(positive > 0) if positive in (0, len(order)) else float(np.mean(precision[steps[:, column] != 0, column]))
        for column, positive in enumerate(positives.tolist())
    ]


def fitted(scores: np.ndarray, n_clips: int) -> np.ndarray:
    """Cut to the number of clips, or filled up with zeros."""
    if len(scores) >= n_clips:
        return scores[:n_clips]
    return np.concatenate([scores, np.zeros(n_clips - len(scores))])


def evaluate(
    truths: Mapping[Any, np.ndarray], predictions: Mapping[Any, np.ndarray | None]
) -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """The official numbers in percent, and `hl_ap` of each query by level and annotator.

    truths: (clips, 3) by qid. predictions: scores by qid, None for a miss; the numbers are means over these.
    """
    least = np.repeat(list(LEVELS.values()), 3)
    hits, precisions = np.zeros((2, len(predictions), len(LEVELS) * 3))
    for number, (qid, scores) in enumerate(predictions.items()):
        if scores is None:
            continue
        positive = np.tile(truths[qid], len(LEVELS)) >= least  # columns: level by level, annotator by annotator
        best = int(scores.argmax())  # over the scores as given: beyond the video it hits nothing
        if best < len(positive):
            hits[number] = positive[best]
        precisions[number] = average_precisions(positive, fitted(scores, len(positive)))
    numbers: dict[str, Any] = {}
    per_query: dict[Any, dict[str, Any]] = {qid: {"hl_ap": {}} for qid in predictions}
    for place, level in enumerate(LEVELS):
        columns = slice(3 * place, 3 * place + 3)
        for qid, row in zip(predictions, precisions[:, columns].tolist(), strict=True):
            per_query[qid]["hl_ap"][level] = row
        numbers[f"HL-min-{level}"] = {
            "HL-mAP": percent(float(np.mean(np.ascontiguousarray(precisions[:, columns])))),
            "HL-Hit1": percent(float(np.mean(np.max(hits[:, columns], 1)))),
        }
    return numbers, per_query
