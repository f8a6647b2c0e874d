"""Flickr30k Entities: recall of the boxes of phrases among the first k predicted, as MDETR measures it."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, flickr30k_files
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   folder of Flickr30k Entities: Annotations/IMAGE.xml, Sentences/IMAGE.txt, test.txt
--predictions    JSON list of {"image_id", "sentence_id" (from 0), "boxes": a list a phrase that has boxes, in their
                 order, of [x1, y1, x2, y2], best first}

any_box          a phrase with several boxes is found with any of them
merged_box       it is found with the box around all of them

Recall at IoU >= .5 of the first 1, 5, 10 and all (-1) boxes, by category; a phrase of two categories counts in both.
"""

RANKS = (1, 5, 10, -1)
THRESHOLD = 0.5


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool, subset: str) -> Report:
    """Each phrase that has boxes is one item."""
    truths = _truths(ground_truth, subset, merged=implementation == "merged_box")
    rejections = Rejections()
    given = _predictions(predictions, truths, strict_official, rejections)
    hits: dict[int, dict[str, list[bool]]] = {k: defaultdict(list) for k in RANKS}
    items: dict[str, Any] = {}
    for key, phrases in truths.items():
        lists = _lists(given, key, len(phrases), strict_official, rejections)
        for number, (phrase, boxes) in enumerate(phrases):
            where = f"{key} phrase {number}"
            found = _boxes(lists[number], where, strict_official, rejections) if lists else np.empty((0, 4))
            best = _best(found, boxes, strict_official)
            items[where] = {str(k): best[k] for k in RANKS}
            for k in RANKS:
                for category in ("all", *phrase.categories):
                    hits[k][category].append(best[k] >= THRESHOLD)
    result = {str(k): {name: sum(each) / len(each) for name, each in by.items()} for k, by in hits.items()}
    told = rejections.summary()
    return Report("flickr30k", implementation, strict_official, result, len(items), len(items), told, items)


def _lists(
    given: dict[str, list[Any]], key: str, phrases: int, strict_official: bool, rejections: Rejections
) -> list[Any] | None:
    """The lists of boxes of a sentence, one a phrase; None if they are not there or of another number."""
    lists = given.get(key)
    if lists is not None and len(lists) == phrases:
        return lists
    there = "nothing" if lists is None else f"{len(lists)} lists of boxes"
    if strict_official:
        raise TpoError(f"sentence {key}: {there} for {phrases} phrases, at which MDETR stops")
    rejections.add("missing" if lists is None else "malformed", f"{key}: {there} for {phrases} phrases")
    return None


def _truths(folder: Path, subset: str, merged: bool) -> dict[str, list[tuple[flickr30k_files.Phrase, np.ndarray]]]:
    """The phrases that have boxes, by IMAGE_SENTENCE; sentences without such a phrase are left out."""
    truths = {}
    for image in flickr30k_files.image_ids(folder, subset):
        boxes = flickr30k_files.boxes(folder / "Annotations" / f"{image}.xml")
        if merged:
            boxes = {chain: _hull(each) for chain, each in boxes.items()}
        for number, phrases in enumerate(flickr30k_files.sentences(folder / "Sentences" / f"{image}.txt")):
            known = [(phrase, boxes[phrase.chain]) for phrase in phrases if phrase.chain in boxes]
            if known:
                truths[f"{image}_{number}"] = known
    return truths


def _hull(boxes_k4: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_k4[:, :2].min(axis=0), boxes_k4[:, 2:].max(axis=0)])[None]


def _predictions(
    path: Path, truths: dict[str, Any], strict_official: bool, rejections: Rejections
) -> dict[str, list[Any]]:
    """The lists of boxes by IMAGE_SENTENCE; the first of a sentence that comes twice."""
    rows = files.json_value(path)
    if not isinstance(rows, list):
        raise TpoError(f"{path}: not a list of predictions; see --help")
    given: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        files.require(row, ("image_id", "sentence_id", "boxes"), f"{path}: prediction {number}")
        key = f"{row['image_id']}_{row['sentence_id']}"
        if key in given:
            rejections.add("duplicate", key)
        elif key not in truths:
            if row["boxes"]:
                rejections.add("unknown", key)
        elif not isinstance(row["boxes"], list):
            raise TpoError(f"{path}: the boxes of {key} are not a list a phrase")
        else:
            given[key] = row["boxes"]
    return given


def _boxes(listed: Any, where: str, strict_official: bool, rejections: Rejections) -> np.ndarray:
    """(k, 4). By default a degenerate box keeps its rank, as NaN, and a list that holds none is empty."""
    try:
        found = np.array(listed, np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.empty(0)
    good = found.ndim == 2 and found.shape[1] == 4 and len(found)
    if strict_official:
        if not good:
            raise TpoError(f"{where}: no list of boxes x1, y1, x2, y2, at which MDETR stops")
        return found
    if not good:
        rejections.add("malformed" if listed else "empty", where)
        return np.empty((0, 4))
    wild = ~np.isfinite(found).all(axis=1)
    reversed_ = ~wild & (found[:, 2:] < found[:, :2]).any(axis=1)
    for reason, which in (("not_finite", wild), ("reversed", reversed_)):
        for rank in np.flatnonzero(which):
            rejections.add(reason, f"{where} box {rank}")
    found[wild | reversed_] = np.nan
    return found


def _best(found_k4: np.ndarray, true_m4: np.ndarray, strict_official: bool) -> dict[int, float]:
    """The best IoU among the first k boxes, for each k; -1 of none."""
    low = np.maximum(found_k4[:, None, :2], true_m4[:, :2])
    high = np.minimum(found_k4[:, None, 2:], true_m4[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (found_k4, true_m4)]
    with np.errstate(divide="ignore", invalid="ignore"):
        overlaps = inter / (areas[0][:, None] + areas[1] - inter)
    if not strict_official:
        overlaps = np.where(np.isnan(overlaps), -1.0, overlaps)
    return {k: float(np.max(overlaps if k == -1 else overlaps[:k], initial=-1.0)) for k in RANKS}


SCORER = Scorer(
    "flickr30k",
    ("any_box", "merged_box"),
    READS,
    score,
    (Option("subset", str, "train, val or test", "test"),),
)
