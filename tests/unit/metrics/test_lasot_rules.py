"""The three rules of LaSOT against the same said slowly, a frame at a time, on tracks with everything in them."""

import math

import numpy as np
import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import lasot_rules

FRAMES = 60


def overlap(a, b):
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(wide, 0) * max(high, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def errors(a, b, least=0.0):
    dx, dy = ((a[i] + (a[i + 2] - 1) / 2) - (b[i] + (b[i + 2] - 1) / 2) for i in (0, 1))
    return math.hypot(dx, dy), math.hypot(dx / max(b[2], least), dy / max(b[3], least))


@pytest.fixture
def track():
    """Truth, a tracker that drifts, and which frames show the target; some visible truths are invalid."""
    rng = np.random.default_rng(7)
    truth = np.concatenate([rng.integers(1, 300, (FRAMES, 2)), rng.integers(20, 90, (FRAMES, 2))], axis=1).astype(float)
    found = truth + rng.normal(0, 12, truth.shape)
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    visible = rng.random(FRAMES) < 0.8
    visible[:5] = True
    truth[2] = (50, 60, 0, 0)
    truth[3, 0] = -4
    return found, truth, visible


def shares(overlaps, pixels, normalized, frames):
    return (
        [sum(o > i / 20 for o in overlaps) / frames for i in range(21)],
        [sum(e <= i for e in pixels) / frames for i in range(51)],
        [sum(e <= i / 100 for e in normalized) / frames for i in range(51)],
    )


def same(curves, expected, tolerance):
    for ours, slow in zip((curves.success, curves.precision, curves.norm_precision), expected, strict=True):
        np.testing.assert_allclose(ours, slow, rtol=0, atol=tolerance)


@pytest.mark.parametrize("exclude", [False, True])
def test_pytracking(track, exclude):
    found, truth, visible = track
    overlaps, pixels, normalized, valid = [], [], [], 0
    for t in range(FRAMES):
        box = truth[0] if t == 0 else found[t]
        if not visible[t]:
            overlaps, pixels, normalized = [*overlaps, -1], [*pixels, math.inf], [*normalized, math.inf]
        elif min(truth[t]) <= 0:
            overlaps, pixels, normalized = [*overlaps, -1], [*pixels, math.inf], [*normalized, -1]
        else:
            valid += 1
            overlaps.append(overlap(box, truth[t]))
            pixels.append(errors(box, truth[t])[0])
            normalized.append(errors(box, truth[t])[1])
    curves = lasot_rules.pytracking(found, truth, visible, np.zeros(FRAMES, bool), exclude)
    same(curves, shares(overlaps, pixels, normalized, valid if exclude else FRAMES), 1e-7)
    assert curves.success.dtype == np.float32
    assert curves.overlap == pytest.approx(np.mean([o for o in overlaps if o >= 0]))


def test_matlab(track):
    found, truth, visible = track
    overlaps, pixels, normalized = [], [], []
    for t in np.flatnonzero(visible):
        box = truth[0] if t == 0 else found[t]
        sound = min(truth[t]) > 0
        overlaps.append(overlap(box, truth[t]) if sound else -1)
        pixels.append(errors(box, truth[t])[0] if sound else -1)
        normalized.append(errors(box, truth[t])[1] if sound else -1)
    curves = lasot_rules.matlab(found, truth, visible, np.zeros(FRAMES, bool))
    same(curves, shares(overlaps, pixels, normalized, FRAMES), 1e-12)


def test_toolkit(track):
    found, truth, _ = track
    boxes = [truth[0], *found[1:]]
    overlaps = [min(max(overlap(a, b), 0), 1) for a, b in zip(boxes, truth, strict=True)]
    pixels, normalized = zip(*(errors(a, b, least=1.0) for a, b in zip(boxes, truth, strict=True)), strict=True)
    same(lasot_rules.toolkit(found, truth, np.zeros(FRAMES, bool)), shares(overlaps, pixels, normalized, FRAMES), 1e-12)


@pytest.mark.parametrize("rule", ["pytracking", "matlab", "toolkit"])
def test_a_rejected_frame_is_a_hit_nowhere(track, rule):
    _, truth, visible = track
    rejected = np.arange(FRAMES) == 10
    visible[10] = True

    def curves(which):
        return {
            "pytracking": lambda: lasot_rules.pytracking(truth, truth, visible, which, False),
            "matlab": lambda: lasot_rules.matlab(truth, truth, visible, which),
            "toolkit": lambda: lasot_rules.toolkit(truth, truth, which),
        }[rule]()

    whole, less = curves(np.zeros(FRAMES, bool)), curves(rejected)
    for kind in ("precision", "norm_precision"):
        np.testing.assert_allclose(getattr(whole, kind) - getattr(less, kind), 1 / FRAMES, rtol=1e-5)
    np.testing.assert_allclose((whole.success - less.success)[:-1], 1 / FRAMES, rtol=1e-5)


def test_the_frame_before_stands_in():
    truth = np.full((4, 4), 5.0)
    found = np.array([[1, 1, 2, 2], [3, 3, 0, 2], [4, 4, 2, 0], [6, 6, 2, 2]], float)
    filled = lasot_rules.fill_pytracking(found, truth, "seq")
    assert filled[:, 0].tolist() == [1, 1, 1, 6]
    found[2] = np.nan
    assert lasot_rules.fill_matlab(found, truth, "seq")[:, 0].tolist() == [1, 1, 1, 6]
    found[3, 2] = -1
    assert lasot_rules.fill_matlab(found, truth, "seq")[:, 0].tolist() == [1, 1, 1, 1]
    found[0, 2] = 0
    assert lasot_rules.fill_matlab(found, truth, "seq")[1, 2] == 0, "nothing stands in for the first frame"


def test_the_toolkit_of_lasot_cuts_before_it_looks():
    found = np.concatenate([np.full((4, 4), 5.0), np.full((1, 4), np.nan)])
    assert len(lasot_rules.fill_matlab(found, np.full((4, 4), 5.0), "seq")) == 4
    with pytest.raises(TpoError, match="refuses a NaN"):
        lasot_rules.fill_pytracking(found, np.full((4, 4), 5.0), "seq")
