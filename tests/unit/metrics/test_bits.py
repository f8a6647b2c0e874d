"""Masks as bits against the same said slowly, at widths around the edges of words."""

import numpy as np
import pytest

from tpo_core.metrics import bits, masks

WIDTHS = (1, 7, 8, 63, 64, 65, 128, 200)


def random_mask(height, width, share):
    return np.random.default_rng(width).random((height, width)) < share


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plane_holds_the_mask(width):
    mask = random_mask(11, width, 0.5)
    plane = bits.pack(mask)
    assert plane.shape == (11, -(-width // 64))
    np.testing.assert_array_equal(bits.unpack(plane, width), mask)
    assert bits.count(plane) == mask.sum()


def test_stacks_are_counted_frame_by_frame():
    stack = np.stack([random_mask(5, 70, share) for share in (0.0, 0.5, 1.0)])
    assert bits.count(bits.pack(stack)).tolist() == stack.sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("width", WIDTHS)
def test_boundary_differs_from_the_right_the_lower_or_the_lower_right_neighbour(width):
    mask = random_mask(9, width, 0.5)
    expected = np.zeros_like(mask)
    for y in range(9):
        for x in range(width):
            last_row, last_column = y == 8, x == width - 1
            if not last_column:
                expected[y, x] |= mask[y, x] != mask[y, x + 1]
            if not last_row:
                expected[y, x] |= mask[y, x] != mask[y + 1, x]
            if not last_row and not last_column:
                expected[y, x] |= mask[y, x] != mask[y + 1, x + 1]
    np.testing.assert_array_equal(masks.boundary(mask), expected)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("radius", [1, 2.5, 8, 40, 70, 300])
def test_dilation_is_a_disk_of_all_pixels_within_the_radius(width, radius):
    mask = random_mask(13, width, 0.02)
    mask[0, 0] = True
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[:13, :width]
    distance = np.sqrt((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(axis=-1)
    np.testing.assert_array_equal(masks.dilate(mask, radius), distance <= radius)


def test_nothing_dilates_to_nothing():
    assert not masks.dilate(np.zeros((6, 130), bool), 9).any()


def blobs(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :70]
    drawn = np.zeros((48, 70), bool)
    for _ in range(3):
        top, left, radius = rng.integers(0, 48), rng.integers(0, 70), rng.integers(3, 14)
        drawn |= (y - top) ** 2 + (x - left) ** 2 < radius**2
    return drawn


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bound", [0.008, 0.03, 1, 5])
def test_contour_accuracy_by_distances_between_pixels(seed, bound):
    """A pixel of one contour is matched if one of the other is within the tolerance."""
    prediction, truth = blobs(seed), blobs(seed + 100)
    radius = masks.boundary_radius(48, 70, bound)
    places = [np.argwhere(masks.boundary(mask)).astype(float) for mask in (prediction, truth)]
    apart = np.linalg.norm(places[0][:, None] - places[1][None], axis=2) <= radius
    precision, recall = apart.any(axis=1).mean(), apart.any(axis=0).mean()
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert masks.boundary_f(prediction, truth, bound=bound) == pytest.approx(expected, abs=1e-12)
    ours = masks.contour_f(masks.shape_of(prediction, bound), masks.shape_of(truth, bound))
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_region_similarity_by_counting_pixels(seed):
    prediction, truth, void = blobs(seed), blobs(seed + 50), blobs(seed + 90)
    assert masks.jaccard(prediction, truth) == (prediction & truth).sum() / (prediction | truth).sum()
    inside = ~void
    expected = (prediction & truth & inside).sum() / ((prediction | truth) & inside).sum()
    assert masks.jaccard(prediction, truth, void) == expected
    assert masks.region_j(masks.shape_of(prediction & inside), masks.shape_of(truth & inside)) == expected


def test_void_makes_contours_along_its_rim():
    whole, void = np.ones((30, 30), bool), np.zeros((30, 30), bool)
    void[10:20, 10:20] = True
    assert masks.shape_of(whole).length == 0
    assert masks.shape_of(whole & ~void).length > 0
    assert masks.boundary_f(np.zeros_like(whole), whole) == 1.0
    assert masks.boundary_f(np.zeros_like(whole), whole, void) == 0.0
