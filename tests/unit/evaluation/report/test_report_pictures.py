import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.unit.evaluation.conftest import HEIGHT, WIDTH, true_mask
from tests.unit.evaluation.report.made_results import make_footage, make_row
from tpo_core.data import rle
from tpo_core.evaluation.canvas import PREDICTION, TRUTH
from tpo_core.evaluation.report.entries import Row
from tpo_core.evaluation.report.pictures import as_mask, shown_frames, spread

BOX, OTHER = [4.0, 3.0, 20.0, 15.0], [24.0, 16.0, 36.0, 28.0]


def frames_of(task, footage=None, **more):
    return shown_frames(Row.model_validate(make_row(0, task, **more)), footage or make_footage(task))


def image(frame):
    data = base64.b64decode(frame.source.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)), int)


def places(frame, colour):
    """Box of the pixels of about this colour, as fractions of the picture; None for none."""
    pixels = image(frame)
    rows, columns = np.nonzero((np.abs(pixels - colour) < 60).all(axis=2))
    if not len(rows):
        return None
    height, width = pixels.shape[:2]
    return [columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height]


def inside(box):
    return [box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT]


def test_a_region_is_one_large_frame_with_both_boxes():
    (frame,) = frames_of("region", truth=BOX, prediction=OTHER)
    assert (frame.width, frame.height) == (480, 360)
    assert places(frame, TRUTH) == pytest.approx(inside(BOX), abs=0.02)
    assert places(frame, PREDICTION) == pytest.approx(inside(OTHER), abs=0.02)


@pytest.mark.parametrize("prediction", [None, "words", [1, 2], [float("nan")] * 4])
def test_without_a_box_only_the_truth_is_drawn(prediction):
    (frame,) = frames_of("region", truth=BOX, prediction=prediction)
    assert places(frame, TRUTH) is not None
    assert places(frame, PREDICTION) is None


def test_a_wild_box_is_cut():
    (frame,) = frames_of("region", truth=BOX, prediction=[-1e12, -1e12, 1e12, 10.0])
    assert places(frame, PREDICTION)[3] == pytest.approx(10 / HEIGHT, abs=0.02)


def test_a_track_is_shown_over_time_and_not_where_it_is_absent():
    frames = frames_of("track", truth=[BOX, BOX, BOX, None], prediction=[OTHER, None, OTHER, OTHER])
    assert [frame.caption for frame in frames] == ["1.00 s", "3.00 s", "5.00 s", "7.00 s"]
    assert [places(frame, TRUTH) is not None for frame in frames] == [True, True, True, False]
    assert [places(frame, PREDICTION) is not None for frame in frames] == [True, False, True, True]


def test_a_track_of_every_frame_is_read_at_the_stored_ones():
    prediction = [None] * 16
    prediction[8] = OTHER  # the third stored frame
    frames = frames_of("track", truth=[BOX] * 16, prediction=prediction)
    assert [places(frame, PREDICTION) is not None for frame in frames] == [False, False, True, False]
    assert len(frames_of("track", truth=[BOX], prediction=[BOX])) == 4  # of another length: frames alone


def test_masks_are_tinted_and_outlined():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[18:28, 24:36] = True
    run = rle.to_coco(rle.encode(mask))
    frames = frames_of("mask", prediction=[run, None, run, run])
    assert [places(frame, PREDICTION) is not None for frame in frames] == [True, False, True, True]
    assert places(frames[0], PREDICTION) == pytest.approx(inside([24, 18, 36, 28]), abs=0.03)
    assert places(frames[0], TRUTH) == pytest.approx(inside([4, 3, 20, 15]), abs=0.03)
    assert places(frames[3], TRUTH) is None  # absent there
    middle = image(frames[0])[round(23 / HEIGHT * 180), round(30 / WIDTH * 240)]
    assert middle[0] > middle[1] + 40  # tinted


@pytest.mark.parametrize("value", [None, "x", {}, {"size": [2, 2], "counts": "9"}, {"size": "x", "counts": "04"}])
def test_what_is_no_mask_is_none(value):
    assert as_mask(value) is None
    assert len(frames_of("mask", prediction=[value] * 4)) == 4


def test_a_mask_is_read_as_it_was_written():
    assert np.array_equal(as_mask(rle.to_coco(rle.encode(true_mask()))), true_mask())


@pytest.mark.parametrize("task", ["moment", "qa", "grounded_choice"])
def test_other_tasks_show_frames_at_equal_distances(task):
    assert len(frames_of(task, make_footage("qa"), truth=None, prediction=None)) == 4


def test_media_of_odd_shapes_have_a_picture_and_no_media_has_none():
    assert frames_of("region", make_footage(width=10_000, height=3))[0].height == 1
    empty = make_footage("qa")
    assert frames_of("qa", type(empty)(**vars(empty) | {"frame_index": np.zeros(0, np.int64)})) == []


@pytest.mark.parametrize("task", ["region", "track", "moment"])
def test_a_picture_stays_below_100_kb_whatever_it_shows(task):
    track = [BOX] * 4 if task == "track" else BOX
    for frame in frames_of(task, make_footage(task, noise=True), truth=track, prediction=track):
        assert 1000 < len(base64.b64decode(frame.source.partition(",")[2])) < 100_000


def test_frames_are_spread_with_the_ends():
    assert spread(np.arange(10), 4) == [0, 3, 6, 9]
    assert spread(np.arange(2), 4) == [0, 1]
    assert spread(np.arange(0), 4) == []
