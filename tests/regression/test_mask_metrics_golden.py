"""Masks of objects and expressions against what the official evaluation codes returned (tests/golden/metrics)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_core.metrics import mask_files, masks
from tpo_core.metrics.registry import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
EXACT = 1e-12


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


@pytest.mark.parametrize("strict", [False, True])
def test_mevis_equals_its_evaluation(strict):
    official = golden("mevis_jf/golden/eval_mevis.json")
    folder = GOLDEN / "mevis_jf" / "input"
    report = score("mevis", folder, folder / "pred", strict_official=strict)
    for name, value in official["global"].items():
        assert report.result[name] == pytest.approx(value, abs=EXACT), name
    assert report.per_item.keys() == official["per_expression"].keys()
    for key, expected in official["per_expression"].items():
        assert report.per_item[key] == pytest.approx(expected, abs=EXACT), key
    assert (report.n, report.N) == (24, 24)
    assert report.rejected["missing"]["count"] == 4, "the expressions of the video without a folder"


def test_statistics_equal_davis():
    given = golden("davis_jf/statistics_input.json")
    for row, official in zip(given, golden("davis_jf/statistics.json"), strict=True):
        values = np.array([float(value) for value in row])
        expected = [float(value) for value in official["result"]]
        np.testing.assert_allclose(masks.statistics(values, official_bins=True), expected, rtol=0, atol=EXACT)


def test_shapes_give_the_same_j_and_f_as_davis():
    official = [row for row in golden("davis_jf/mask_pairs.json") if "J" in row]
    with np.load(GOLDEN / "davis_jf" / "mask_pairs.npz") as pairs:
        for row in official:
            truth, prediction = pairs[f"{row['case']}_gt"].astype(bool), pairs[f"{row['case']}_pred"].astype(bool)
            counted = ~pairs[f"{row['case']}_void"].astype(bool) if row["void"] else np.ones_like(truth)
            j, f = mask_files.pair_scores(prediction & counted, truth & counted)
            assert (j, f) == pytest.approx((row["J"], row["F"]), abs=EXACT), row
            assert masks.shape_of(truth).length == row["gt_boundary_pixels"]
            assert masks.shape_of(prediction).length == row["pred_boundary_pixels"]
