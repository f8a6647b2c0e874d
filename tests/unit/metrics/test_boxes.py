"""Overlaps and distances of boxes as each code writes them, by hand."""

import numpy as np
import pytest

from tpo_core.metrics import boxes

NAN = float("nan")


def one(*box):
    return np.array([box], np.float64)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 10, 10), 0.0),
    ],
)
def test_the_inclusive_form_is_the_plain_one(a, b, expected):
    assert boxes.pixel_iou(one(*a), one(*b)) == pytest.approx([expected])
    assert boxes.toolkit_iou(one(*a), one(*b)) == pytest.approx([expected])
    corners = boxes.xywh_to_xyxy(one(*a)), boxes.xywh_to_xyxy(one(*b))
    assert boxes.unchecked_iou(*corners) == pytest.approx([expected])
    assert boxes.iou(*corners) == pytest.approx([expected])


def test_zero_over_zero():
    empty = one(5, 5, 0, 0)
    assert np.isnan(boxes.pixel_iou(empty, empty))[0]
    assert boxes.toolkit_iou(empty, empty)[0] == 0
    assert np.isnan(boxes.unchecked_iou(one(5, 5, 5, 5), one(5, 5, 5, 5)))[0]
    assert boxes.iou(one(5, 5, 5, 5), one(5, 5, 5, 5))[0] == 0


@pytest.mark.parametrize(
    ("box", "truth", "expected"),
    [
        ((-30, 0, 40, 40), (0, 0, 40, 40), 1.0),  # moved right as a whole
        ((80, 0, 40, 40), (80, 0, 20, 40), 1.0),  # cut at the right
        ((0, 70, 10, 40), (0, 70, 10, 30), 1.0),  # cut at the bottom
        ((130, 0, 10, 10), (90, 0, 10, 10), 0.0),  # beyond the image: no width is left
        ((10, 10, -5, 10), (10, 10, 5, 10), 0.0),
    ],
)
def test_boxes_are_clipped_to_the_image_corner_first(box, truth, expected):
    assert boxes.toolkit_iou(one(*box), one(*truth), (100, 100)) == pytest.approx([expected])


def test_clipping_leaves_what_was_given_alone():
    box = one(-30, 0, 40, 40)
    boxes.toolkit_iou(box, box, (100, 100))
    assert box.tolist() == [[-30, 0, 40, 40]]


def test_distances():
    found, truth = one(0, 0, 10, 10), one(3, 4, 10, 10)
    assert boxes.center_error(found, truth) == pytest.approx([5])
    assert boxes.normalized_center_error(found, truth) == pytest.approx([0.5])
    assert boxes.toolkit_normalized_center_error(found, truth) == pytest.approx([0.5])
    assert boxes.center_error(one(0, 0, 11, 10), one(0, 0, 10, 10)) == pytest.approx([0.5])


def test_distances_in_sizes_of_nothing():
    found, flat = one(0, 0, 10, 10), one(3, 0, 0, 10)
    assert not np.isfinite(boxes.normalized_center_error(found, flat))[0]
    assert boxes.toolkit_normalized_center_error(found, flat) == pytest.approx([2.0])


def test_nan_stays_where_nothing_is_checked():
    wild = one(NAN, 0, 10, 10)
    assert np.isnan(boxes.toolkit_iou(wild, one(0, 0, 10, 10)))[0]
    assert np.isnan(boxes.center_error(wild, one(0, 0, 10, 10)))[0]


def test_float32_stays_float32():
    a = np.array([[0, 0, 10, 10]], np.float32)
    assert boxes.unchecked_iou(a, a).dtype == np.float32
    assert boxes.giou(a, a).dtype == np.float32


def test_generalised_overlap_by_hand():
    """Two unit squares two apart: the hull has 3, of which 1 is empty."""
    assert boxes.giou(one(0, 0, 1, 1), one(2, 0, 3, 1)) == pytest.approx([-1 / 3])
    assert boxes.giou(one(0, 0, 2, 1), one(0, 0, 1, 1)) == pytest.approx([0.5])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_that_reaches_to_infinity_overlaps_with_nothing(dtype):
    wild = np.array([[0, 0, np.inf, 10], [0, 0, np.inf, 0], [-np.inf, -np.inf, np.inf, np.inf]], dtype)
    truth = np.array([[0, 0, 10, 10]] * 3, dtype)
    assert boxes.iou(wild, truth, dtype).tolist() == [0, 0, 0]
    assert not (boxes.giou(wild, truth) > -1).any()
