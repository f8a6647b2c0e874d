"""Our metrics against what the official evaluation code returned on the same files (tests/golden/metrics)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_core.metrics import masks
from tpo_core.metrics.score import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
EXACT = 1e-12  # J, F and IoU in float64
FLOAT32 = 1e-6


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def test_charades_sta_prints_what_cgdetr_prints():
    folder = GOLDEN / "charades_sta"
    report = score("charades_sta", folder / "gt_tvr.jsonl", folder / "pred_tvr.jsonl", "cgdetr")
    official = golden("charades_sta/cgdetr.json")["result"]
    expected = {
        f"{part}/r1@{float(t):g}": v for part in official if part != "brief" for t, v in official[part]["MR-R1"].items()
    }
    expected |= {f"{part}/miou": official[part]["MR-mIoU"] for part in official if part != "brief"}
    assert len(expected) == 60
    assert {name: float(text) for name, text in report.printed.items()} == expected
    assert (report.n_truths, report.n_predicted, report.n_invalid, report.n_unknown) == (300, 300, 0, 0)


def test_charades_sta_iou_of_each_query():
    folder = GOLDEN / "charades_sta"
    report = score("charades_sta", folder / "gt_tvr.jsonl", folder / "pred_tvr.jsonl")
    official = [json.loads(line) for line in (folder / "cgdetr.per_query.jsonl").read_text().splitlines()]
    for row in official:
        assert report.per_item[str(row["qid"])] == pytest.approx(row["top1_iou"], abs=EXACT)


@pytest.mark.parametrize(("implementation", "form"), [("pixels", "pixels"), ("lmms_eval", "normalised")])
def test_refcoco_acc_equals_lmms_eval(implementation, form):
    main = GOLDEN / "refcoco_acc" / "main.jsonl"
    report = score("refcoco_acc", main, main, implementation)
    official = golden("refcoco_acc/lmms_eval_rec.json")
    assert report.values["acc@0.5"] == official[form]["main"]["ACC@0.5"]
    assert report.values["miou"] == pytest.approx(official[form]["main"]["IoU"], abs=EXACT)
    if form == "pixels":
        for row in official["per_sample_pixels"]["main"]:
            assert report.per_item[str(row["id"])] == pytest.approx(row["iou"], abs=EXACT)


def test_refcoco_acc_equals_shikra():
    main = GOLDEN / "refcoco_acc" / "main.jsonl"
    report = score("refcoco_acc", main, main, "shikra")
    official = golden("refcoco_acc/shikra.json")["main"]["result"]
    assert report.values["acc@0.5"] == pytest.approx(official["accuracy"], abs=EXACT)
    assert report.values["miou"] == pytest.approx(official["iou"], abs=FLOAT32)


def test_refcoco_acc_equals_mdetr():
    main = GOLDEN / "refcoco_acc" / "main.jsonl"
    report = score("refcoco_acc", main, main, "mdetr")
    official = golden("refcoco_acc/mdetr.json")
    for dataset, (at_1, *_) in official["main"]["result"].items():
        assert report.values[f"{dataset}/acc@0.5"] == pytest.approx(at_1, abs=EXACT)
    for row in official["per_sample"]["main"]:
        assert report.per_item[str(row["id"])] == pytest.approx(row["giou"], abs=FLOAT32)


def test_mask_pairs_equal_davis():
    pairs = GOLDEN / "davis_jf" / "mask_pairs.npz"
    report = score("mask_jf", pairs, pairs)
    official = [row for row in golden("davis_jf/mask_pairs.json") if "J" in row]
    assert len(report.per_item) == len(official) == 108
    for row in official:
        assert report.per_item[row["case"]]["j"] == pytest.approx(row["J"], abs=EXACT), row
        assert report.per_item[row["case"]]["f"] == pytest.approx(row["F"], abs=EXACT), row


def test_contours_at_other_tolerances_equal_davis():
    rows = [row for row in golden("davis_jf/mask_pairs.json") if "bound_th" in row]
    assert len(rows) == 28
    with np.load(GOLDEN / "davis_jf" / "mask_pairs.npz") as pairs:
        for row in rows:
            f = masks.boundary_f(pairs[f"{row['case']}_pred"], pairs[f"{row['case']}_gt"], bound=row["bound_th"])
            assert f == pytest.approx(row["F"], abs=EXACT), row


def test_boundaries_equal_davis():
    with (
        np.load(GOLDEN / "davis_jf" / "mask_pairs.npz") as pairs,
        np.load(GOLDEN / "davis_jf" / "boundaries.npz") as edges,
    ):
        for name in edges.files:
            np.testing.assert_array_equal(masks.boundary(pairs[name.removesuffix("_boundary")]), edges[name])
    for row in golden("davis_jf/mask_pairs.json"):
        if "radius" in row:
            assert masks.boundary_radius(row["h"], row["w"]) == row["radius"]
