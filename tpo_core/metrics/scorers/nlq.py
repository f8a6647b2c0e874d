"""Ego4D natural language queries."""

from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, ranked, submission
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   nlq_val.json: videos[].clips[].annotations[].language_queries[] with clip_start_sec, clip_end_sec
--predictions    the submission: {version: "1.0", challenge: "ego4d_nlq_challenge", results: [...]}, or the list of
                 results alone, each with clip_uid, annotation_uid, query_idx (the place in language_queries, queries
                 without text counted) and predicted_times [[start_s, end_s], ...], best first

Numbers are shares: Rank@k mIoU@t is the share of queries with IoU over the hull strictly above t among the first k;
mIoU is that of the first. Queries without text are no truths. Strictly official, queries without a prediction leave
the denominator, and one point predicted on itself makes mIoU NaN."""

THRESHOLDS, RANKS = (0.3, 0.5, 0.01), (1, 3, 5)
KEY = ("clip_uid", "annotation_uid", "query_idx")
Key = tuple[Any, ...]


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """Over the queries of the truth, or strictly official over those of the submission."""
    truths, n_queries = _truths(ground_truth, strict_official)
    given = _results(predictions, strict_official)
    rejections = Rejections()
    pick = _strict if strict_official else _lenient
    found = pick(truths, given, rejections)
    if not found:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    values = [overlap for _, overlap in found]
    per_item = {
        "/".join(map(str, key)): {"top1_iou": float(overlap[0]) if len(overlap) else 0.0} for key, overlap in found
    }
    return Report(
        "nlq",
        implementation,
        strict_official,
        ranked.recalls(values, THRESHOLDS, RANKS, " "),
        len(found),
        n_queries,
        rejections.summary(),
        per_item,
    )


def _truths(path: Path, strict: bool) -> tuple[dict[Key, Any], int]:
    """The query of each key, and of how many queries it is said to be: the official code scores those without text
    too, and counts those without times."""
    content = files.json_value(path)
    truths: dict[Key, Any] = {}
    listed = 0
    try:
        for video in content["videos"]:
            for clip in video["clips"]:
                for note in clip["annotations"]:
                    listed += len(note["language_queries"])
                    for place, query in enumerate(note["language_queries"]):
                        if "clip_start_sec" in query and (strict or query.get("query", "") is not None):
                            truths[(clip["clip_uid"], note["annotation_uid"], place)] = query
    except (KeyError, TypeError, AttributeError) as error:
        raise TpoError(f"{path}: not the annotations of NLQ ({error!r})") from None
    for key, query in truths.items():
        if submission.pair([query["clip_start_sec"], query.get("clip_end_sec")]) is None:
            raise TpoError(f"{path}: {_name(key)} has no clip_start_sec and clip_end_sec in seconds")
    return truths, listed if strict else len(truths)


def _results(path: Path, strict: bool) -> list[dict[str, Any]]:
    content = files.json_value(path)
    if isinstance(content, dict) and strict and content.get("version") != "1.0":
        raise TpoError(f"{path}: the official code stops here: version must be '1.0', not {content.get('version')!r}")
    rows = content.get("results") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise TpoError(f"{path}: neither a list of results nor an object with results")
    for number, row in enumerate(rows):
        files.require(row, (*KEY, "predicted_times"), f"{path}: result {number}")
        for name in KEY:
            files.require_id(row[name], f"{path}: {name} of result {number}")
    return rows


def _lenient(
    truths: dict[Key, Any], given: list[dict[str, Any]], rejections: Rejections
) -> list[tuple[Key, np.ndarray]]:
    first: dict[Key, Any] = {}
    for row in given:
        key = tuple(row[name] for name in KEY)
        if key not in truths:
            rejections.add("unknown", _name(key))
        elif key in first:
            rejections.add("duplicate", _name(key))
        else:
            first[key] = _listed(row["predicted_times"])
    found = []
    for key, query in truths.items():
        truth = (query["clip_start_sec"], query["clip_end_sec"])
        if submission.flaw(submission.pair(truth)) is not None:
            rejections.add("bad_truth", _name(key))
            continue
        if truth[0] == truth[1]:
            rejections.add("zero_length_truth", _name(key))
        if key not in first:
            rejections.add("missing", _name(key))
        windows = sound(first.get(key, []), _name(key), rejections, key in first)
        found.append((key, np.nan_to_num(ranked.overlaps(windows, truth), nan=0.0)))
    return found


def _listed(windows: Any) -> Any:
    """One moment may come without a list around it."""
    return [windows] if isinstance(windows, list) and windows and not isinstance(windows[0], list) else windows


def sound(given: Any, name: str, rejections: Rejections, told: bool) -> list[tuple[float, float]]:
    """The moments of a prediction, with NOTHING in the place of a degenerate one; `told` if an empty list is to be."""
    if not isinstance(given, list):
        rejections.add("malformed", name)
        return []
    if not given and told:
        rejections.add("empty", name)
    windows = []
    for place, one in enumerate(given):
        window = submission.pair(one)
        reason = submission.flaw(window)
        if reason is not None:
            rejections.add(reason, f"{name} moment {place}")
        windows.append(ranked.NOTHING if reason or window is None else window)
    return windows


def _strict(
    truths: dict[Key, Any], given: list[dict[str, Any]], rejections: Rejections
) -> list[tuple[Key, np.ndarray]]:
    """Every row counts, a repeated one too."""
    found = []
    for row in given:
        key = tuple(row[name] for name in KEY)
        if key not in truths:
            raise TpoError(f"the official code stops here: {_name(key)} is no query of the truth")
        windows = _listed(row["predicted_times"])
        if not windows or not isinstance(windows, list) or any(submission.pair(window) is None for window in windows):
            raise TpoError(f"the official code stops at {_name(key)}: predicted_times must be [[start, end], ...]")
        truth = (truths[key]["clip_start_sec"], truths[key]["clip_end_sec"])
        found.append((key, ranked.overlaps([window[:2] for window in windows], truth)))
    named = {key for key, _ in found}
    for key in truths:
        if key not in named:
            rejections.add("missing", _name(key))
    return found


def _name(key: Key) -> str:
    return "/".join(map(str, key))


SCORER = Scorer("nlq", ("nlq",), READS, score)
