import numpy as np
import pytest

from tpo_core.evaluation import baselines

WH = np.array([[100, 50], [200, 100]])
BOXES = np.array([[10, 10, 30, 20], [60, 60, 100, 80.0]])  # (.1, .2, .3, .4) and (.3, .6, .5, .8) of the image
MEAN = (0.2, 0.4, 0.4, 0.6)


def test_the_mean_box_is_relative_and_skips_absent_ones():
    boxes = np.concatenate([BOXES, np.full((1, 4), np.nan)])
    assert baselines.fit_box(boxes, np.concatenate([WH, WH[:1]])) == pytest.approx(MEAN)
    with pytest.raises(ValueError, match="no box in train"):
        baselines.fit_box(np.empty((0, 4)), np.empty((0, 2)))


def test_constant_box_is_scored_in_pixels_of_each_image():
    held_out, sizes = np.array([[20, 40, 40, 60], [0, 0, 1, 1.0]]), np.array([[100, 100], [100, 100]])
    assert baselines.constant_box(BOXES, WH, held_out, sizes) == {
        "region/acc@0.5": 0.5,
        "region/miou": pytest.approx(0.5),
    }


def test_constant_moment_takes_median_centre_and_length():
    train, durations = [np.array([[0.0, 2.0]]), np.array([[4.0, 6.0], [8.0, 10.0]])], [10.0, 10.0]
    assert baselines.fit_moment(train, durations) == pytest.approx((0.4, 0.6))
    metrics = baselines.constant_moment(
        train, durations, [np.array([[8.0, 12.0]]), np.array([[0.0, 1.0]])], [20.0, 20.0]
    )
    assert metrics["moment/r1@0.7"] == 0.5
    assert metrics["moment/miou"] == pytest.approx(0.5)


def test_whole_clip():
    metrics = baselines.whole_clip([np.array([[0.0, 6.0]])], [10.0])
    assert metrics == {"moment/r1@0.3": 1.0, "moment/r1@0.5": 1.0, "moment/r1@0.7": 0.0, "moment/miou": 0.6}


def test_constant_mask_fills_the_mean_box():
    truth = np.zeros((2, 10, 10), bool)
    truth[0, 4:6, 2:4] = True
    metrics = baselines.constant_mask(BOXES, WH, [truth])
    assert metrics == {"mask/j": 0.5, "mask/f": 0.5, "mask/j&f": 0.5}


def test_constant_track_counts_visible_frames():
    truth = np.array([[20, 40, 40, 60], [0, 0, 1, 1], [np.nan] * 4])
    assert baselines.constant_track(BOXES, WH, [truth], np.array([[100, 100]])) == {"track/miou": pytest.approx(0.5)}


def test_majority_answer_by_type_of_question():
    train = [("colour", "Red."), ("colour", "red"), ("colour", "blue"), ("count", "two")]
    types, texts = zip(*train, strict=True)
    metrics = baselines.majority_answer(
        types, texts, ["colour", "colour", "count", "new"], ["red", "blue", "two", "red"]
    )
    assert metrics == {"qa/accuracy": 0.75}
