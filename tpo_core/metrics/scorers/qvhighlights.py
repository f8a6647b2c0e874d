"""QVHighlights: moment retrieval and highlight detection, and the same moment numbers for other sets."""

from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, highlights, retrieval, submission, window_processing
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   highlight_{val,test}_release.jsonl: a line a query with
                 qid, relevant_windows [[start_s, end_s], ...], and for highlights
                 duration, relevant_clip_ids, saliency_scores [[a, b, c], ...]
--predictions    the submission, JSON lines with qid and one or both of
                 pred_relevant_windows [[start_s, end_s, score], ...] (the first is the one that R1 takes),
                 pred_saliency_scores [one a 2-s clip]

Implementations: moment_detr (R1 from .5, no mIoU), cgdetr (R1 from .3, mIoU), tpo (as cgdetr; strictly official it
leaves out every query that is in one file only, where the others stop).
Numbers are percent with two decimals: R1@t, mIoU (over the hull), mAP over the first 10 windows, each for truth windows
of (0, 10], (10, 30], (30, 150] s and all; HL-mAP and HL-Hit1 at Fair, Good, VeryGood (the headline)."""

LONGEST_S = 150.0  # of a video
LOWEST_R1 = {"cgdetr": 0.3, "moment_detr": 0.5, "tpo": 0.3}
# What CG-DETR writes for a range without a query: zeros under 19 thresholds, whose names are floats.
EMPTY_RANGE = {str(float(t)): 0.0 for t in np.linspace(0.5, 0.95, 19)} | {"average": 0.0}


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    clip_round: bool,
    nms: float | None,
) -> Report:
    """Both tasks, as far as the submission has them."""
    truth_rows = files.json_lines(ground_truth, "qid")
    for row in truth_rows:
        files.require_id(row["qid"], f"{ground_truth}: qid")
    given = [_processed(row, clip_round, nms) for row in submission.rows(predictions)]
    looked_at = given[:1] if strict_official else given  # the official code looks at the first row only
    rejections = Rejections()
    result: dict[str, Any] = {}
    brief: dict[str, Any] = {}
    items: dict[Any, dict[str, Any]] = {}
    n = 0
    if any("pred_relevant_windows" in row for row in looked_at):
        truths = windows(truth_rows, ground_truth, rejections, strict_official)
        bad = set() if strict_official else {row["qid"] for row in truth_rows} - truths.keys()
        rest = [row for row in given if row["qid"] not in bad]  # whose truths were told
        result, brief, items, n = moments(truths, rest, implementation, rejections, strict_official)
    if any("pred_saliency_scores" in row for row in looked_at):
        unseen = Rejections() if result else rejections  # ids are told once
        numbers, per_query = _highlights(
            truth_rows, ground_truth, given, implementation, strict_official, rejections, unseen
        )
        result |= numbers
        brief |= {f"{name}-{key.split('-')[1]}": v for name, level in numbers.items() for key, v in level.items()}
        items = {qid: items.get(qid, {}) | per_query.get(qid, {}) for qid in items | per_query}
        n = n or len(per_query)
    if not result:
        raise TpoError(f"{predictions}: has neither pred_relevant_windows nor pred_saliency_scores")
    return Report(
        "qvhighlights",
        implementation,
        strict_official,
        {"brief": brief} | dict(sorted(result.items())),
        n,
        len(truth_rows),
        rejections.summary(),
        {str(qid): numbers for qid, numbers in items.items()},
    )


def _processed(row: dict[str, Any], clip_round: bool, nms: float | None) -> dict[str, Any]:
    """A row with its windows processed, if they all have the form of windows."""
    listed = row.get("pred_relevant_windows")
    if not listed or not isinstance(listed, list) or any(submission.pair(window) is None for window in listed):
        return row
    if any(len(window) != 3 or not submission.is_number(window[2]) for window in listed):
        return row
    if clip_round:
        cut = window_processing.within(np.array(listed), 0, LONGEST_S)
        listed = window_processing.written(window_processing.on_clips(cut, highlights.CLIP_S))
    if nms is not None:
        listed = window_processing.suppressed(listed[: retrieval.MAX_RANKED], nms, retrieval.MAX_RANKED)
    return row | {"pred_relevant_windows": listed}


def windows(rows: list[dict[str, Any]], path: Path, rejections: Rejections, strict: bool) -> dict[Any, np.ndarray]:
    """Truth windows (m, 2) by qid; degenerate truths are rejected, unless strict. TpoError where a row has none."""
    found: dict[Any, np.ndarray] = {}
    for row in rows:
        files.require(row, ("qid", "relevant_windows"), f"{path}: qid {row['qid']}")
        if row["qid"] in found:
            raise TpoError(f"{path}: repeats qid {row['qid']}; keep one")
        spans = submission.truth_windows(row["relevant_windows"])
        if spans is None and (row["relevant_windows"] != [] or strict):
            raise TpoError(f"{path}: relevant_windows of qid {row['qid']} must be [[start, end], ...]")
        if not strict and (spans is None or not np.isfinite(spans).all() or (spans[:, 1] < spans[:, 0]).any()):
            rejections.add("bad_truth", row["qid"])
        elif spans is not None:
            found[row["qid"]] = spans
            if (spans[:, 1] == spans[:, 0]).any():
                rejections.add("zero_length_truth", row["qid"])
    return found


def moments(
    truths: dict[Any, np.ndarray], given: submission.Rows, implementation: str, rejections: Rejections, strict: bool
) -> tuple[dict[str, Any], dict[str, Any], dict[Any, dict[str, Any]], int]:
    """The numbers by range, the brief ones, those behind each query, and how many queries they are means over."""
    if strict:
        queries = submission.strict_queries(truths, given, implementation)
    else:
        queries = submission.lenient_queries(truths, given, rejections)
    if not queries:
        why = "no query is in both files" if strict else "no query has a truth that can be matched"
        raise TpoError(f"{why}, so there is nothing to score")
    result: dict[str, Any] = {}
    items: dict[Any, dict[str, Any]] = {}
    with_miou = implementation != "moment_detr"
    for name in retrieval.RANGES_S:
        numbers, per_query = retrieval.range_numbers(queries, name, LOWEST_R1[implementation], with_miou, strict)
        if numbers is None and not with_miou and strict:
            raise TpoError(f"the official code stops here: no query has a truth in the range {name!r}")
        result[name] = numbers or _empty_range(with_miou)
        items = per_query
    return result, _brief(result, with_miou), items, len(queries)


def _empty_range(with_miou: bool) -> dict[str, Any]:
    """Moment-DETR has no number for it, hence NaN."""
    if with_miou:
        return {"MR-mAP": dict(EMPTY_RANGE), "MR-R1": dict(EMPTY_RANGE)}
    at = {str(t): float("nan") for t in retrieval.AP_THRESHOLDS}
    return {"MR-mAP": at | {"average": float("nan")}, "MR-R1": dict(at)}


def _brief(result: dict[str, Any], with_miou: bool) -> dict[str, Any]:
    full = result["full"]
    numbers = {f"MR-full-R1@{t}": full["MR-R1"][str(t)] for t in ((0.3, 0.5, 0.7) if with_miou else (0.5, 0.7))}
    numbers["MR-full-mAP"] = full["MR-mAP"]["average"]
    numbers |= {f"MR-full-mAP@{t}": full["MR-mAP"][str(t)] for t in (0.5, 0.75)}
    numbers |= {f"MR-{name}-mAP": result[name]["MR-mAP"]["average"] for name in ("long", "middle", "short")}
    return dict(sorted((numbers | ({"MR-full-mIoU": full["MR-mIoU"]} if with_miou else {})).items()))


def _highlights(
    rows: list[dict[str, Any]],
    path: Path,
    given: submission.Rows,
    implementation: str,
    strict: bool,
    rejections: Rejections,
    ids_told_to: Rejections,
) -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """The numbers of highlight detection, and those behind each query."""
    truths = {}
    for row in rows:
        where = f"{path}: qid {row['qid']}"
        files.require(row, ("qid", "duration", "relevant_clip_ids", "saliency_scores"), where)
        if strict and row["relevant_clip_ids"] == []:
            raise TpoError(f"the official code stops here: {where} has no relevant_clip_ids")
        try:
            truths[row["qid"]] = highlights.truth_scores(
                row["duration"], row["relevant_clip_ids"], row["saliency_scores"]
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise TpoError(f"{where}: {error}") from None
    if strict:
        submission.must_agree(truths.keys(), given, implementation)
        return highlights.evaluate(truths, submission.strict_scores(given, truths))
    first = submission.by_id(given, truths, ids_told_to)
    scores = {qid: submission.scores_of(row, rejections, len(truths[qid])) for qid, row in first.items()}
    return highlights.evaluate(truths, scores | {qid: None for qid in truths if qid not in first})


SCORER = Scorer(
    "qvhighlights",
    ("cgdetr", "moment_detr", "tpo"),
    READS,
    score,
    (
        Option("clip_round", bool, "first cut windows to [0, 150] s and round them to 2 s, as published numbers do"),
        Option("nms", float, "then drop windows that overlap a better one by more (over the hull); none by default"),
    ),
)
