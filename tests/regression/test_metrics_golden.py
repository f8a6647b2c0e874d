"""Our metrics against what the official evaluation code returned on the same files (tests/golden/metrics)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_core.metrics import masks

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
EXACT = 1e-12  # J, F and IoU in float64


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def test_mask_pairs_equal_davis():
    official = [row for row in golden("davis_jf/mask_pairs.json") if "J" in row]
    assert len(official) == 108
    with np.load(GOLDEN / "davis_jf" / "mask_pairs.npz") as pairs:
        for row in official:
            true, found = pairs[f"{row['case']}_gt"], pairs[f"{row['case']}_pred"]
            void = pairs.get(f"{row['case']}_void")
            assert np.mean(masks.jaccard(found, true, void)) == pytest.approx(row["J"], abs=EXACT), row
            assert np.mean(masks.boundary_f(found, true, void)) == pytest.approx(row["F"], abs=EXACT), row


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
