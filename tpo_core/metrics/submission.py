"""Reads QVHighlights-style submissions, and rejects what is degenerate in them."""

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files
from tpo_core.metrics.report import Rejections
from tpo_core.metrics.retrieval import MAX_RANKED, Query

NOTHING = np.full(2, np.nan)
Rows = list[dict[str, Any]]


def rows(path: Path) -> Rows:
    """The JSON lines of a submission. TpoError for a file without any."""
    found = files.json_lines(path, "qid")
    for row in found:
        files.require_id(row["qid"], f"{path}: qid")
    if not found:
        raise TpoError(f"{path}: holds no prediction; write one JSON object with a qid on each line")
    return found


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a JSON file is a number; true and false are none, nor is an integer beyond all floats."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float)


def pair(value: Any) -> tuple[float, float] | None:
    """(start, end) of the first two numbers of a list; None if it has none such."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return None
    if not all(map(is_number, value[:2])):
        return None
    return float(value[0]), float(value[1])


def flaw(window: tuple[float, float] | None) -> str | None:
    """The reason to reject a window, or None."""
    if window is None:
        return "malformed"
    if not all(map(math.isfinite, window)):
        return "not_finite"
    return "reversed" if window[1] < window[0] else None


def by_id(given: Rows, known: Mapping[Any, Any], rejections: Rejections) -> dict[Any, dict[str, Any]]:
    """The first row of each known id; unknown ids, repeated ones and missing ones are told."""
    first: dict[Any, dict[str, Any]] = {}
    for row in given:
        if row["qid"] not in known:
            rejections.add("unknown", row["qid"])
        elif row["qid"] in first:
            rejections.add("duplicate", row["qid"])
        else:
            first[row["qid"]] = row
    for qid in known:
        if qid not in first:
            rejections.add("missing", qid)
    return first


def lenient_queries(truths: Mapping[Any, np.ndarray], given: Rows, rejections: Rejections) -> list[Query]:
    """One query a truth, in the order of the submission, the missing ones last."""
    first = by_id(given, truths, rejections)
    order = [*first, *(qid for qid in truths if qid not in first)]
    return [_lenient(qid, truths[qid], first.get(qid), rejections) for qid in order]


def _lenient(qid: Any, truths: np.ndarray, row: dict[str, Any] | None, rejections: Rejections) -> Query:
    """A degenerate window keeps its place as NaN, so that none behind it moves up."""
    listed = (row or {}).get("pred_relevant_windows")
    if row is not None and not isinstance(listed, list):
        rejections.add("malformed" if "pred_relevant_windows" in row else "missing", qid)
    elif row is not None and not listed:
        rejections.add("empty", qid)
    windows, scores = [], []
    for place, one in enumerate(listed if isinstance(listed, list) else []):
        window, reason = pair(one), flaw(pair(one))
        score = one[2] if isinstance(one, list) and len(one) > 2 else None
        if not is_number(score):
            reason, score = reason or "malformed", -math.inf
        elif not math.isfinite(score):
            reason, score = reason or "not_finite", -math.inf
        if reason is not None:
            rejections.add(reason, f"{qid} window {place}")
        windows.append(NOTHING if reason or window is None else np.array(window))
        scores.append(score)
    ranked = sorted(zip(scores[:MAX_RANKED], windows[:MAX_RANKED], strict=True), key=lambda each: -each[0])
    if not windows:
        return Query(qid, truths, np.empty((0, 2)), NOTHING)
    return Query(qid, truths, np.array([window for _, window in ranked]), windows[0])


def must_agree(known: Collection[Any], given: Rows, implementation: str) -> None:
    """TpoError where the ids of both files differ and the official code minds; that of TPO does not."""
    differ = sorted(map(str, {row["qid"] for row in given} ^ set(known)))
    if differ and implementation != "tpo":
        raise TpoError(
            f"the official code stops here: {len(differ)} qids are in one file only, the first is {differ[0]}"
        )


def strict_queries(truths: Mapping[Any, np.ndarray], given: Rows, implementation: str) -> list[Query]:
    """As the official code pools them: of a repeated qid the windows of all rows are ranked, and the last is the top.

    TpoError where that code raises: sets of ids that differ, an empty list, windows of another form.
    """
    must_agree(truths.keys(), given, implementation)
    pooled: dict[Any, list[list[float]]] = {}
    top: dict[Any, np.ndarray] = {}
    for row in given:
        if row["qid"] not in truths:
            continue
        listed = row.get("pred_relevant_windows")
        if not listed or not isinstance(listed, list) or not all(map(_has_score, listed)):
            raise TpoError(
                f"the official code stops at qid {row['qid']}: pred_relevant_windows must be [[start, end, score], ...]"
            )
        pooled.setdefault(row["qid"], []).extend(listed[:MAX_RANKED])
        top[row["qid"]] = np.array(pair(listed[0]), np.float64)
    return [
        Query(qid, truths[qid], np.array([w[:2] for w in sorted(windows, key=lambda w: -w[2])], np.float64), top[qid])
        for qid, windows in pooled.items()
    ]


def _has_score(window: Any) -> bool:
    return pair(window) is not None and len(window) > 2 and is_number(window[2])


def scores_of(row: Mapping[str, Any], rejections: Rejections, n_clips: int) -> np.ndarray | None:
    """The saliency scores of a row, or None for what is rejected."""
    given, qid = row.get("pred_saliency_scores"), row["qid"]
    if given is None:
        rejections.add("missing", f"{qid} saliency")
        return None
    if not isinstance(given, list) or not all(map(is_number, given)):
        rejections.add("malformed", f"{qid} saliency")
        return None
    scores = np.array(given, np.float64)
    if not len(scores) or not np.isfinite(scores).all():
        rejections.add("not_finite" if len(scores) else "empty", f"{qid} saliency")
        return None
    if len(scores) != n_clips:
        rejections.add("resized", f"{qid}: {len(scores)} scores for {n_clips} clips")
    return scores


def strict_scores(given: Rows, truths: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray | None]:
    """Saliency scores by qid, the last row of a repeated one. TpoError where the official code raises."""
    found: dict[Any, np.ndarray | None] = {}
    for row in given:
        if row["qid"] not in truths:
            continue
        scores = row.get("pred_saliency_scores")
        if not scores or not isinstance(scores, list) or not all(map(is_number, scores)):
            raise TpoError(f"the official code stops at qid {row['qid']}: it has no list of pred_saliency_scores")
        values = np.array(scores, np.float64)
        uniform = all(
            len(np.unique(truths[row["qid"]][:, who] >= least)) == 1 for who in range(3) for least in (2, 3, 4)
        )
        if not np.isfinite(values).all() and not uniform:
            raise TpoError(f"the official code stops at qid {row['qid']}: a saliency score is not finite")
        found[row["qid"]] = values
    return found


def truth_windows(value: Any) -> np.ndarray | None:
    """(m, 2) float64; None for what is no list of windows."""
    windows: Sequence[Any] = value if isinstance(value, list) else []
    pairs = [pair(window) for window in windows]
    sound = [window for window in pairs if window is not None]
    return np.array(sound, np.float64) if sound and len(sound) == len(pairs) else None
