"""DiDeMo: runs of 5-s chunks, judged against several annotators."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, submission
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   {val,test}_data.json: a list of rows with times [[first, last], ...], one an annotator; first and last
                 5-s chunk, both inside
--predictions    a JSON list with for each row, in order, all 21 runs [first, last] of six chunks, best first

Numbers are shares: of a row the mean of its three lowest ranks counts for rank@1 and rank@5 (mean rank <= k), the mean
of its three highest IoU (in chunks) for mIoU."""

COUNTED = 3  # of usually four annotators, those that agree best with the prediction


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """By place; strictly official, the longer file is cut."""
    truths = _rows(ground_truth)
    given = files.json_value(predictions)
    if not isinstance(given, list):
        raise TpoError(f"{predictions}: not a JSON list of ranked runs")
    rejections = Rejections()
    rejections.unknown(f"row {place}" for place in range(len(truths), len(given)))
    ranks, overlaps, names = [], [], []
    for place, row in enumerate(truths):
        if strict_official and place >= len(given):
            break
        times = [tuple(pair) for pair in row["times"]]
        name = row.get("annotation_id", place)
        if strict_official:
            rank, overlap = _strict(given[place], times, name)
        elif not times or any(_flaw(pair) for pair in times):
            rejections.add("bad_truth", name)
            continue
        else:
            listed = given[place] if place < len(given) else None
            rank, overlap = _lenient(listed, times, name, place < len(given), rejections)
        ranks.append(rank)
        overlaps.append(overlap)
        names.append(name)
    if not ranks:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    numbers = {f"rank@{k}": float(np.mean(np.array(ranks) <= k)) for k in (1, 5)}
    per_item = {
        str(name): {"mean_rank": rank, "mean_iou": overlap}
        for name, rank, overlap in zip(names, ranks, overlaps, strict=True)
    }
    return Report(
        "didemo",
        implementation,
        strict_official,
        numbers | {"mIoU": float(np.mean(overlaps))},
        len(ranks),
        len(truths),
        rejections.summary(),
        per_item,
    )


def iou(found: tuple[float, ...], truth: tuple[float, ...]) -> float:
    """Overlap over the hull in chunks, ends inside. ZeroDivisionError when a reversed run makes the hull empty."""
    inter = max(0, min(found[1], truth[1]) + 1 - max(found[0], truth[0]))
    return float(inter) / (max(found[1], truth[1]) + 1 - min(found[0], truth[0]))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = files.json_value(path)
    if not isinstance(rows, list):
        raise TpoError(f"{path}: not a JSON list of annotations")
    for place, row in enumerate(rows):
        files.require(row, ("times",), f"{path}: row {place}")
        if not isinstance(row["times"], list) or any(not isinstance(t, list) or len(t) != 2 for t in row["times"]):
            raise TpoError(f"{path}: times of row {place} must be [[first, last], ...]")
    return rows


def _means(ranks: list[float], overlaps: list[float]) -> tuple[float, float]:
    if not ranks:
        return math.nan, math.nan
    return float(np.mean(np.sort(ranks)[:COUNTED])), float(np.mean(np.sort(overlaps)[-COUNTED:]))


def _strict(listed: Any, times: list[tuple[Any, ...]], name: Any) -> tuple[float, float]:
    try:
        runs = [tuple(run) for run in listed]
        return _means([runs.index(time) + 1 for time in times], [iou(runs[0], time) for time in times])
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise TpoError(f"the official code stops at {name}: {error}") from None


def _lenient(
    listed: Any, times: list[tuple[Any, ...]], name: Any, there: bool, rejections: Rejections
) -> tuple[float, float]:
    """A degenerate run keeps its place; a truth that is not ranked has no rank, hence infinite."""
    if not isinstance(listed, list) or not listed:
        rejections.add("missing" if not there else "empty" if listed == [] else "malformed", name)
        return math.inf, 0.0
    runs: list[tuple[Any, ...] | None] = []
    for place, run in enumerate(listed):
        reason = _flaw(run)
        if reason is not None:
            rejections.add(reason, f"{name} run {place}")
        runs.append(tuple(run) if reason is None else None)
    if any(time not in runs for time in times):
        rejections.add("unranked", name)
    ranks = [float(runs.index(time) + 1) if time in runs else math.inf for time in times]
    return _means(ranks, [iou(runs[0], time) if runs[0] else 0.0 for time in times])


def _flaw(run: Any) -> str | None:
    """The reason to reject a run of chunks, or None."""
    if not isinstance(run, list | tuple) or len(run) != 2:
        return "malformed"
    if not all(map(submission.is_number, run)):
        return "malformed"
    if not all(map(math.isfinite, run)):
        return "not_finite"
    return "reversed" if run[1] < run[0] else None


SCORER = Scorer("didemo", ("didemo",), READS, score)
