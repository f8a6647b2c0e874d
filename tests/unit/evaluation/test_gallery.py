import numpy as np
import pytest
from PIL import Image

from tpo_core.evaluation.canvas import PREDICTION, TRUTH, text_width, wrap
from tpo_core.evaluation.gallery import CARD_WH, GalleryItem, card, gallery

GREY = np.full((8, 48, 64, 3), 90, np.uint8)
TIMES = np.arange(8) + 0.5
LONG = "where is the thing that " * 40


def item(kind, truth, prediction, **more):
    values = {"question": "Where is it?", "answer_text": "<box_begin><boxes>", "score": "iou 0.50", "title": ""} | more
    return GalleryItem(
        kind, frames_THWC=GREY, times_s=TIMES, size_wh=(640, 480), truth=truth, prediction=prediction, **values
    )


def masks():
    found = np.zeros((8, 480, 640), bool)
    found[2:, 100:300, 200:400] = True
    return found


ITEMS = {
    "region": lambda: item("region", np.array([100, 100, 300, 300.0]), np.array([320, 240, 600, 460.0])),
    "moment": lambda: item("moment", np.array([[2.0, 4.0]]), np.array([[4.0, 8.0]])),
    "mask": lambda: item("mask", masks(), np.roll(masks(), 150, axis=2)),
    "track": lambda: item("track", np.tile([100, 100, 300, 300.0], (8, 1)), np.tile([320, 240, 600, 460.0], (8, 1))),
}


def near(image, colour):
    """(H, W) bool: pixels of about this colour."""
    return (np.abs(np.asarray(image, int) - colour) < 40).all(axis=2)


@pytest.mark.parametrize("kind", ITEMS)
def test_truth_and_prediction_are_both_drawn(kind):
    image = card(ITEMS[kind]())
    assert image.size == CARD_WH
    picture = image.crop((0, 0, CARD_WH[0], CARD_WH[1] - 60))  # without the legend
    assert near(picture, TRUTH).sum() > 500
    assert near(picture, PREDICTION).sum() > 300


@pytest.mark.parametrize("kind", ITEMS)
def test_without_a_prediction_only_the_legend_says_so(kind):
    with_one, without = ITEMS[kind](), item(kind, ITEMS[kind]().truth, None)
    image = card(without)
    assert near(image, PREDICTION).sum() < 0.5 * near(card(with_one), PREDICTION).sum()
    assert near(image.crop((0, 0, CARD_WH[0], CARD_WH[1] - 60)), PREDICTION).sum() == 0


def test_boxes_are_in_pixels_of_the_original():
    image = card(ITEMS["region"]())
    grey = np.nonzero((np.abs(np.asarray(image, int) - 90) < 3).all(axis=2))
    left, right, top, bottom = grey[1].min(), grey[1].max() + 1, grey[0].min(), grey[0].max() + 1
    rows, columns = np.nonzero(near(image.crop((left, top, right, bottom)), TRUTH))
    scale = (right - left) / 640
    assert np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale == pytest.approx(
        [100, 100, 300, 300], abs=4
    )


def test_bars_lie_where_the_moments_are():
    image = card(ITEMS["moment"]())
    truth, found = (near(image.crop((140, 0, CARD_WH[0], CARD_WH[1] - 60)), colour) for colour in (TRUTH, PREDICTION))
    truth_x, found_x = np.nonzero(truth.any(axis=0))[0], np.nonzero(found.any(axis=0))[0]
    assert found_x.min() == pytest.approx(truth_x.max(), abs=3)  # 4 s
    assert np.ptp(found_x) == pytest.approx(2 * np.ptp(truth_x), abs=6)  # 4 s and 2 s long
    assert np.nonzero(truth.any(axis=1))[0].max() < np.nonzero(found.any(axis=1))[0].min()


def test_a_moment_beyond_the_frames_stays_on_the_axis():
    assert card(item("moment", np.array([[0.0, 99.0]]), np.empty((0, 2)))).size == CARD_WH


def test_absent_boxes_are_not_drawn():
    nowhere = np.full((8, 4), np.nan)
    image = card(item("track", nowhere, nowhere))
    assert near(image.crop((0, 0, CARD_WH[0], CARD_WH[1] - 60)), TRUTH).sum() == 0


@pytest.mark.parametrize("kind", ["region", "moment"])
def test_long_words_stay_inside_the_card(kind):
    image = np.asarray(card(item(kind, ITEMS[kind]().truth, None, question=LONG + "x" * 300, answer_text=LONG)))
    assert (image[:, -30:] == 255).all()
    assert (image[-15:] == 255).all()


def test_text_is_wrapped_at_the_width_and_cut_with_dots():
    lines = wrap(LONG + "y" * 200, 20, 300, 3)
    assert len(lines) == 3
    assert all(text_width(line, 20) <= 300 for line in lines)
    assert lines[-1].endswith("...")
    assert "".join(wrap("ab " + "y" * 200, 20, 300, 99)).replace(" ", "") == "ab" + "y" * 200


def test_a_gallery_is_one_file_an_item_and_a_sheet(tmp_path):
    paths = gallery([ITEMS["region"](), ITEMS["moment"]()], tmp_path / "new")
    assert [path.name for path in paths] == ["01_region.png", "02_moment.png", "gallery.png"]
    assert Image.open(paths[0]).size == CARD_WH
    assert Image.open(paths[-1]).size[0] > CARD_WH[0]


def test_a_gallery_of_nothing_is_nothing(tmp_path):
    assert gallery([], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
