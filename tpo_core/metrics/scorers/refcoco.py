"""RefCOCO, RefCOCO+ and RefCOCOg: accuracy of the box of a sentence at IoU .5."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import refcoco_files, refcoco_rules
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   JSON lines with id, width, height, gt_xywh and optionally dataset; or the question file of
                 All-Seeing-V2 (question_id, width, height, bbox as x1, y1, x2, y2, category); or a COCO .json in the
                 form of MDETR (an image a sentence); or a folder of `refer` (refs(SPLIT_BY).p, instances.json), where
                 the id is sent_id
--predictions    JSON lines with id (or question_id, image_id, sent_id) and pred_xyxy in pixels: four numbers, or boxes
                 best first, or null; or text, the reply of a model, as lmms_eval, shikra and all_seeing_v2 parse it;
                 or the .json of MDETR, {IMAGE_ID: {"scores": [...], "boxes": [[x1, y1, x2, y2], ...]}}

iou              IoU >= .5 in pixels, float64, a sentence
lmms_eval        the same of boxes divided by the size of the image, which moves exact halves
shikra           IoU > .5 of divided boxes times 1000, float32
all_seeing_v2    IoU > .5 in pixels, float32, percent by category; text is [[x1, y1, x2, y2]] of 0..999
mdetr            generalised IoU >= .5 in pixels, float32, the best of the first k boxes, by dataset
"""


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    split: str,
    split_by: str | None,
    square_pad: bool,
    box_scale: float,
) -> Report:
    """One box a sentence, or the first k of several."""
    truths = refcoco_files.truths(ground_truth, split, split_by)
    rejections = Rejections()
    # All-Seeing-V2 walks over the answers, so that one given twice counts twice.
    twice = strict_official and implementation == "all_seeing_v2"
    given = refcoco_files.predictions(predictions, rejections, keep_duplicates=twice)
    for key, _ in given:
        if key not in truths:
            rejections.add("unknown", key)
    for key in truths.keys() - {key for key, _ in given}:
        rejections.add("missing", key)
    parser = refcoco_rules.Parser(implementation, square_pad, box_scale)
    known = [(key, one) for key, one in given if key in truths]
    if strict_official:
        refcoco_rules.refuse(implementation, truths, given)
        pairs = refcoco_rules.official_pairs(implementation, truths, known, parser)
    else:
        pairs = refcoco_rules.screened_pairs(truths, dict(known), parser, rejections)
    if not pairs:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    result, items = refcoco_rules.RULES[implementation](pairs)
    return Report(
        "refcoco",
        implementation,
        strict_official,
        result,
        len({pair.key for pair in pairs}),
        len(truths),
        rejections.summary(),
        _by_key(pairs, items),
    )


def _by_key(pairs: list[refcoco_rules.Pair], items: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair.key: item for pair, item in zip(pairs, items, strict=True)}


SCORER = Scorer(
    "refcoco",
    ("iou", "lmms_eval", "shikra", "all_seeing_v2", "mdetr"),
    READS,
    score,
    (
        Option("split", str, "split of a `refer` folder: val, test, testA, testB, train", "val"),
        Option("split_by", str, "who made the splits of a `refer` folder: unc, umd, google (default: the only one)"),
        Option("square_pad", bool, "all_seeing_v2: the replies are about images padded to a square", False),
        Option("box_scale", float, "all_seeing_v2: the largest number of a reply", 999),
    ),
)
