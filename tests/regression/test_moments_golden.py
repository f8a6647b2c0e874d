"""Moment metrics against what the official evaluation codes returned on the same files."""

import json
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import replies
from tpo_core.metrics import window_processing as processing
from tpo_core.metrics.registry import score
from tpo_core.metrics.scorers import didemo, nextgqa

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


def test_nlq():
    folder, official = GOLDEN / "nlq_2dtan" / "input", golden("nlq_2dtan/golden/nlq.json")
    report = score("nlq", folder / "nlq_gt.json", folder / "nlq_pred.json", strict_official=True)
    for t, row in zip(official["thresholds"], official["mean_results[threshold][topK]"], strict=True):
        for k, value in zip(official["topK"], row, strict=True):
            assert report.result[f"Rank@{k} mIoU@{t}"] == pytest.approx(value, abs=EXACT)
    assert report.result["mIoU"] == pytest.approx(official["mIoU"], abs=EXACT)
    assert f"Evaluated: {report.n} / {report.N} instances\n" == official["stdout"]


def test_nlq_with_degenerate_moments():
    folder, official = GOLDEN / "nlq_2dtan" / "input", golden("nlq_2dtan/golden/nlq_degenerate.json")
    paths = folder / "nlq_degenerate_gt.json", folder / "nlq_degenerate_pred.json"
    report = score("nlq", *paths, strict_official=True)
    found = [[report.result[f"Rank@{k} mIoU@{t}"] for k in (1, 5)] for t in (0.3, 0.5)]
    assert found == official["mean_results[threshold][topK]"]
    assert json.loads(report.as_json())["result"]["mIoU"] == official["mIoU"] == "NaN"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("nms", [0.4, 0.45, 0.5])
def test_tacos(nms, strict):
    path, official = GOLDEN / "nlq_2dtan/input/tan.json", golden("nlq_2dtan/golden/tan.json")
    report = score("tacos", path, path, strict_official=strict, nms=nms)
    expected = official[f"nms_{nms}"]
    for t, row in zip(official["TIOU"], expected["result[tiou][recall]"], strict=True):
        for k, value in zip(official["RECALL"], row, strict=True):
            assert report.result[f"Rank@{k},mIoU@{t}"] == pytest.approx(value, abs=EXACT)
    assert report.result["mIoU"] == pytest.approx(expected["mIoU"], abs=EXACT)


@pytest.mark.parametrize("strict", [False, True])
def test_didemo(strict):
    folder, official = GOLDEN / "didemo" / "input", golden("didemo/golden/didemo.json")
    report = score("didemo", folder / "gt.json", folder / "ranked_segments.json", strict_official=strict)
    assert report.result == {name: pytest.approx(official[name], abs=EXACT) for name in ("rank@1", "rank@5", "mIoU")}


def test_didemo_overlaps():
    for found, truth, value in golden("didemo/golden/iou_pairs.json"):
        assert didemo.iou(found, truth) == value


NEXT_GQA = GOLDEN / "nextgqa" / "input"


@pytest.mark.parametrize(
    ("case", "predictions", "options"),
    [
        ("seconds", "pred_ground.json", {"qa": NEXT_GQA / "pred_qa.json"}),
        ("fraction_of_duration_gs", "pred_ground_fraction.json", {"qa": NEXT_GQA / "pred_qa.json", "fractions": True}),
        ("no_qa", "pred_ground.json", {}),
        ("subset_50", "pred_ground.json", {"qa": NEXT_GQA / "pred_qa.json", "subset": NEXT_GQA / "subset.json"}),
    ],
)
def test_nextgqa(case, predictions, options):
    report = score("nextgqa", NEXT_GQA / "gsub.json", NEXT_GQA / predictions, strict_official=True, **options)
    assert report.result == golden("nextgqa/golden/nextgqa.json")[case]["result"]


def test_nextgqa_of_each_question():
    report = score("nextgqa", NEXT_GQA / "gsub.json", NEXT_GQA / "pred_ground.json", strict_official=True)
    official = golden("nextgqa/golden/nextgqa.json")["per_sample"]
    assert len(official) == report.n == 112
    for row in official:
        assert report.per_item[row["key"]]["best_IoU"] == pytest.approx(row["best_IoU"], abs=EXACT)
        assert report.per_item[row["key"]]["best_IoP"] == pytest.approx(row["best_IoP"], abs=EXACT)


def test_nextgqa_overlaps():
    for row in golden("nextgqa/golden/tiou_pairs.json"):
        span = tuple(map(float, row["span"]))
        assert nextgqa.overlap(row["loc"], span) == pytest.approx(tuple(row["result"]), abs=EXACT), row


def test_nextgqa_without_a_common_question(tmp_path):
    (tmp_path / "pred.json").write_text('{"x_1": [0, 1]}')
    with pytest.raises(TpoError, match="has no question of"):
        score("nextgqa", NEXT_GQA / "gsub.json", tmp_path / "pred.json", strict_official=True)
    assert score("nextgqa", NEXT_GQA / "gsub.json", tmp_path / "pred.json").result["mIoU"] == 0.0


@pytest.mark.parametrize(
    ("case", "process"),
    [
        ("qvhighlights_clip_round", lambda w: processing.written(processing.on_clips(processing.within(w, 0, 150), 2))),
        (
            "window_len_then_clip_round",
            lambda w: processing.written(
                processing.on_clips(processing.within(processing.of_length(w, 2, 70), 0, 150), 2)
            ),
        ),
        ("nms_0.0", lambda w: processing.suppressed(w, 0.0, 5)),
        ("nms_0.5", lambda w: processing.suppressed(w, 0.5, 5)),
        ("nms_0.7", lambda w: processing.suppressed(w, 0.7, 5)),
    ],
)
def test_windows_are_processed(case, process):
    official = golden(f"qvhighlights/golden/postprocess.{case}.json")["result"]
    given = rows("qvhighlights/input/postprocess/pred.jsonl")
    for row, expected in zip(given, official, strict=True):
        assert process(row["pred_relevant_windows"]) == expected["pred_relevant_windows"], row
