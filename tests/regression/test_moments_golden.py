"""Moment metrics against what the official evaluation codes returned on the same files."""

import json
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import replies
from tpo_core.metrics.registry import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
EXACT = 1e-12  # IoU and AP in float64


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def rows(name):
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("implementation", ["cgdetr", "moment_detr", "tpo"])
@pytest.mark.parametrize("case", ["main", "perfect", "len_boundaries", "hl_only", "mr_only"])
def test_qvhighlights(case, implementation, strict):
    folder = GOLDEN / "qvhighlights" / "input" / case
    report = score("qvhighlights", folder / "gt.jsonl", folder / "pred.jsonl", implementation, strict)
    assert report.result == golden(f"qvhighlights/golden/{case}.{implementation}.json")["result"]
    assert report.n == report.N


def test_qvhighlights_of_each_query():
    folder = GOLDEN / "qvhighlights" / "input" / "main"
    report = score("qvhighlights", folder / "gt.jsonl", folder / "pred.jsonl")
    official = rows("qvhighlights/golden/main.per_query.jsonl")
    assert len(official) == len(report.per_item) == 240
    for row in official:
        found = report.per_item[str(row.pop("qid"))]
        assert found["top1_iou"] == pytest.approx(row["top1_iou"], abs=EXACT)
        assert found["ap_at_iou"] == pytest.approx(row["ap_at_iou"], abs=EXACT)
        assert list(found["hl_ap"]) == list(row["hl_ap"])
        for level, values in row["hl_ap"].items():
            assert found["hl_ap"][level] == pytest.approx(values, abs=EXACT)


CHARADES = GOLDEN / "charades_sta" / "input"
TRUTHS = ["gt_tvr.jsonl", "gt_coco.json", "charades_sta_synth.txt"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize(
    ("implementation", "predictions"),
    [("cgdetr", "pred_tvr.jsonl"), ("timesuite", "pred_timesuite.json"), ("lmms_eval", "pred_lmms_eval.json")],
)
def test_charades_sta(implementation, predictions, truth, strict):
    report = score("charades_sta", CHARADES / truth, CHARADES / predictions, implementation, strict)
    assert report.result == golden(f"charades_sta/golden/{implementation}.json")["result"]
    assert (report.n, report.N) == (300, 300)


def test_charades_sta_of_each_query():
    report = score("charades_sta", CHARADES / "gt_tvr.jsonl", CHARADES / "pred_tvr.jsonl")
    for row in rows("charades_sta/golden/cgdetr.per_query.jsonl"):
        assert report.per_item[str(row["qid"])]["top1_iou"] == pytest.approx(row["top1_iou"], abs=EXACT)


def test_vtimellm_of_each_reply(tmp_path):
    official = golden("charades_sta/golden/vtimellm_percent.json")
    for row in official:
        path = tmp_path / "pairs.json"
        path.write_text(json.dumps([[row["text"], row["gt_fraction"]]]))
        if row["status"] == "error":
            with pytest.raises(TpoError, match="0/0"):
                score("charades_sta", path, path, "vtimellm", strict_official=True)
        else:
            report = score("charades_sta", path, path, "vtimellm", strict_official=True)
            assert report.per_item["0"]["iou"] == row["result"], row
            assert report.result["mIoU"] == 100 * row["result"]
    assert {row["status"] for row in official} == {"ok", "error"}


def test_a_reply_is_read_differently_by_each_code():
    reply = "The tomato 3 to 4 happens in 05 and 30, 1 - 2"
    assert replies.timesuite(reply) == (1.0, 2.0)
    assert replies.lmms_eval(reply) == (3.0, 4.0)
    assert replies.vtimellm(reply) == (0.05, 0.3)
