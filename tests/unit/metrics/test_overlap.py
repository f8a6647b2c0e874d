"""Edge cases of boxes, moments, masks and tracks that no golden file holds."""

import numpy as np
import pytest

from tpo_core.metrics import boxes, masks, moments, tracks

NAN = float("nan")


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 1, 2), (0, 0, 2, 2), 0.5),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),
        ((2, 2, 0, 0), (0, 0, 2, 2), 0.0),
        ((NAN, 0, 1, 1), (0, 0, 2, 2), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
    ],
)
def test_box_iou(prediction, truth, expected):
    assert boxes.iou(np.array([prediction]), np.array([truth])) == pytest.approx([expected])


def test_exactly_half_is_a_hit():
    assert boxes.acc_at(boxes.iou(np.array([[0, 0, 1, 2]]), np.array([[0, 0, 2, 2]]))) == 1.0


def test_giou_of_boxes_apart_is_negative():
    assert boxes.giou(np.array([[0.0, 0, 1, 1]]), np.array([[3.0, 0, 4, 1]])) == pytest.approx([-0.5])


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ((2, 4), (2, 4), 1.0),
        ((0, 10), (4, 6), 0.2),
        ((0, 1), (9, 10), 0.0),
        ((5, 5), (5, 5), 0.0),
        ((6, 4), (4, 6), 0.0),
        ((NAN, 6), (4, 6), 0.0),
    ],
)
def test_tiou_over_the_hull(prediction, truth, expected):
    assert moments.tiou(np.array(prediction), np.array(truth)) == pytest.approx(expected)


def test_the_first_listed_moment_counts_not_the_best_scored():
    prediction = np.array([[0.0, 1.0, 0.1], [4.0, 6.0, 0.9]])
    assert moments.top1_tiou(prediction, np.array([[4.0, 6.0]])) == 0.0


def test_of_several_truths_the_nearest_counts():
    assert moments.top1_tiou(np.array([[4.0, 6.0]]), np.array([[0.0, 1.0], [4.0, 8.0]])) == 0.5


def test_nothing_predicted_is_a_miss_that_counts():
    metrics = moments.score([np.empty((0, 2)), np.array([[4.0, 6.0]])], [np.array([[4.0, 6.0]])] * 2)
    assert metrics == {"r1@0.3": 0.5, "r1@0.5": 0.5, "r1@0.7": 0.5, "miou": 0.5}


def test_a_full_truth_against_nothing_has_no_contour_to_miss():
    full, empty = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    assert masks.jaccard(empty, full) == 0.0
    assert masks.boundary_f(empty, full) == 1.0
    assert masks.jaccard(empty, empty) == 1.0


def test_stacks_of_masks_are_scored_frame_by_frame():
    truth = np.zeros((3, 20, 20), bool)
    truth[:2, 5:12, 5:12] = True
    prediction = truth.copy()
    prediction[1] = False
    assert masks.jaccard(prediction, truth).tolist() == [1.0, 0.0, 1.0]
    assert masks.boundary_f(prediction, truth).tolist() == [1.0, 0.0, 1.0]
    assert masks.score([prediction], [truth], [None])["j"] == pytest.approx(2 / 3)


def test_dilation_is_a_disk_of_all_pixels_within_the_radius():
    rng = np.random.default_rng(0)
    mask = rng.random((23, 31)) < 0.02
    mask[0, 0] = True
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[:23, :31]
    distance = np.sqrt((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(axis=-1)
    for radius in (1.0, 2.0, 2.5, 8.0, 40.0):
        np.testing.assert_array_equal(masks.dilate(mask, radius), distance <= radius)


def test_tracks_count_visible_frames_and_missing_boxes():
    truth = np.array([[0, 0, 2, 2], [NAN] * 4, [0, 0, 2, 2]], float)
    prediction = np.array([[0, 0, 2, 2], [0, 0, 9, 9], [NAN] * 4], float)
    assert tracks.mean_iou(prediction, truth) == 0.5
    assert np.isnan(tracks.mean_iou(prediction, np.full((3, 4), NAN)))
