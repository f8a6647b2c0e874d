"""The command line prints what the official codes returned, as strict JSON, for moments and questions."""

import json
from pathlib import Path

import pytest

from tpo_core.metrics.score import main

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"


def number_of(result, path):
    for name in path:
        result = result[name]
    return result


@pytest.mark.parametrize(
    ("metric", "truth", "predictions", "more", "path", "value"),
    [
        ("qvhighlights", "qvhighlights/input/main/gt.jsonl", "pred.jsonl", [], ["brief", "MR-full-mAP"], 62.12),
        ("charades_sta", "charades_sta/input/gt_tvr.jsonl", "pred_tvr.jsonl", [], ["brief", "MR-full-R1@0.5"], 63.33),
        (
            "charades_sta",
            "charades_sta/input/gt_coco.json",
            "pred_timesuite.json",
            ["--implementation", "timesuite"],
            ["0.5"],
            63.0,
        ),
        (
            "nlq",
            "nlq_2dtan/input/nlq_degenerate_gt.json",
            "nlq_degenerate_pred.json",
            ["--strict-official"],
            ["mIoU"],
            "NaN",
        ),
        ("tacos", "nlq_2dtan/input/tan.json", "tan.json", ["--nms", "0.45"], ["Rank@1,mIoU@0.5"], 0.8),
        ("didemo", "didemo/input/gt.json", "ranked_segments.json", [], ["rank@1"], 0.325),
        (
            "nextgqa",
            "nextgqa/input/gsub.json",
            "pred_ground.json",
            ["--strict-official", "--qa", str(GOLDEN / "nextgqa/input/pred_qa.json")],
            ["Acc@GQA"],
            49.1,
        ),
    ],
)
def test_the_command_prints_the_official_number(capsys, metric, truth, predictions, more, path, value):
    gt = GOLDEN / truth
    words = [metric, "--ground-truth", str(gt), "--predictions", str(gt.parent / predictions), "--json", *more]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert number_of(report["result"], path) == value
    assert report["n"] <= report["N"]
    assert report["per_item"]
