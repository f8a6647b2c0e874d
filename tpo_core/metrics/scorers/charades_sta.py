"""Charades-STA: one moment a sentence."""

from pathlib import Path

import numpy as np

from tpo_core.metrics import files, moments
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   JSONL with qid, relevant_windows [[start_s, end_s], ...]
--predictions    JSONL with qid, pred_relevant_windows [[start_s, end_s, score], ...], best first
"""


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """CG-DETR: the first listed window of a query, IoU over the hull, percent with two decimals."""
    rejections = Rejections()
    truths = {row["qid"]: row["relevant_windows"] for row in files.json_lines(ground_truth, "qid", "relevant_windows")}
    given = {
        row["qid"]: row["pred_relevant_windows"]
        for row in files.json_lines(predictions, "qid", "pred_relevant_windows")
    }
    for qid in truths.keys() - given.keys():
        rejections.add("missing", qid)
    for qid in given.keys() - truths.keys():
        rejections.add("unknown", qid)
    overlaps = {qid: moments.top1_tiou(np.array(given.get(qid, [])), np.array(true)) for qid, true in truths.items()}
    values = np.array(list(overlaps.values()))
    result = {f"{t:g}": round(100 * moments.recall_at(values, t), 2) for t in moments.THRESHOLDS}
    full = {"MR-R1": result, "MR-mIoU": round(100 * float(np.mean(values)), 2)}
    return Report(
        "charades_sta",
        implementation,
        strict_official,
        {"full": full},
        len(truths),
        len(truths),
        rejections.summary(),
        {str(qid): {"top1_iou": value} for qid, value in overlaps.items()},
    )


SCORER = Scorer("charades_sta", ("cgdetr",), READS, score)
