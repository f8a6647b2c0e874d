"""Tracks of boxes against what the official evaluation codes returned on the same files (tests/golden/metrics)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_core.metrics import boxes
from tpo_core.metrics.registry import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
EXACT = 1e-12
FLOAT32_PERCENT = 2e-5  # the float32 of pytracking, on percentages


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(), parse_constant=float)


def lasot(tracker: str, implementation: str, **options: object) -> Any:
    folder = GOLDEN / "lasot" / "input"
    return score("lasot", folder / "LaSOT", folder / "results" / tracker, implementation, **options)


@pytest.mark.parametrize("tracker", ["Jitter", "Exact"])
@pytest.mark.parametrize("exclude", [False, True])
def test_lasot_equals_pytracking(tracker, exclude):
    official = golden("lasot/golden/pytracking.json")[f"{tracker}/exclude_invalid_frames={exclude}"]
    report = lasot(tracker, "pytracking", exclude_invalid_frames=exclude)
    for name in ("AUC", "OP50", "OP75", "Precision", "NormPrecision"):
        assert report.result[name] == pytest.approx(official[name], abs=FLOAT32_PERCENT), name
    assert (report.n, report.N, report.rejected) == (6, 6, {})
    listed = (GOLDEN / "lasot" / "input" / "sequences.txt").read_text().split()
    for name, overlap in zip(listed, official["avg_overlap_all"], strict=True):
        item = report.per_item[name]
        assert item["avg_overlap"] == pytest.approx(overlap, abs=EXACT)
        for curve, values in official["per_sequence"][name].items():
            np.testing.assert_allclose(item[curve], values, rtol=0, atol=1e-7)


@pytest.mark.parametrize("tracker", ["Jitter", "Exact"])
def test_lasot_equals_its_matlab_toolkit(tracker):
    official = golden("lasot/golden/official_matlab_octave.json")[tracker]
    report = lasot(tracker, "lasot_matlab")
    for name in official.keys() - {"status", "per_sequence"}:
        assert report.result[name] == pytest.approx(official[name], abs=EXACT), name
    for sequence, values in official["per_sequence"].items():
        for name, value in values.items():
            np.testing.assert_allclose(report.per_item[sequence][name], value, rtol=0, atol=EXACT)


@pytest.mark.parametrize("tracker", ["Jitter", "Exact"])
@pytest.mark.parametrize("strict", [False, True])
def test_lasot_equals_the_got10k_toolkit(tracker, strict):
    official = golden("lasot/golden/got10k_toolkit.json")[tracker]["result"]
    report = lasot(tracker, "got10k_toolkit", strict_official=strict)
    for name in official["overall"].keys() - {"speed_fps"}:
        np.testing.assert_allclose(report.result[name], official["overall"][name], rtol=0, atol=EXACT)
    for sequence, values in official["seq_wise"].items():
        for name in values.keys() - {"speed_fps"}:
            np.testing.assert_allclose(report.per_item[sequence][name], values[name], rtol=0, atol=EXACT)


@pytest.mark.parametrize("tracker", ["Jitter", "ThreeRuns", "Exact"])
@pytest.mark.parametrize("strict", [False, True])
def test_got10k_equals_its_toolkit(tracker, strict):
    folder = GOLDEN / "got10k" / "input"
    official = golden("got10k/golden/got10k_toolkit.json")[tracker]["result"]
    report = score("got10k", folder / "data", folder / "results" / "GOT-10k" / tracker, strict_official=strict)
    for name, value in official["overall"].items():
        np.testing.assert_allclose(report.result[name], value, rtol=0, atol=EXACT)
    for sequence, values in official["seq_wise"].items():
        for name, value in values.items():
            assert report.per_item[sequence][name] == pytest.approx(value, abs=EXACT), (sequence, name)


def test_boxes_equal_the_got10k_toolkit():
    given, official = golden("got10k/input/boxes.json"), golden("got10k/golden/boxes.json")
    prediction = np.array([[float(x) for x in row] for row in given["pred_xywh"]])
    truth = np.array([[float(x) for x in row] for row in given["gt_xywh"]])
    ours = {
        "iou": boxes.toolkit_iou(prediction, truth),
        "iou_bounded": boxes.toolkit_iou(prediction, truth, tuple(given["bound_wh"])),
        "center_error": boxes.center_error(prediction, truth),
        "normalized_center_error": boxes.toolkit_normalized_center_error(prediction, truth),
    }
    assert ours.keys() == official.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(values, [float(x) for x in official[name]], rtol=0, atol=EXACT)


@pytest.mark.parametrize("tracker", ["Jitter", "Exact", "HalfPixel", "Wild"])
def test_trackingnet_equals_its_development_kit(tracker):
    folder = GOLDEN / "trackingnet" / "input"
    official = golden("trackingnet/golden/trackingnet_devkit.json")[tracker]
    for strict in (False, True):
        report = score("trackingnet", folder / "anno", folder / "results" / tracker, strict_official=strict)
        same = {name: report.result[name] == pytest.approx(official[name], abs=EXACT) for name in report.result}
        if strict or not report.rejected:
            assert all(same.values()), same
    assert (tracker == "Wild") == bool(report.rejected)
