from dataclasses import replace

import numpy as np
import pytest

from tests.unit.evaluation.conftest import ANSWER, BOX, HEAD_OF, SPAN_S, FakeModel, answer_with, make_example
from tpo_core.config.schema import EvaluationConfig
from tpo_core.evaluation.measure import measure, score
from tpo_core.evaluation.spoken import between, boxes_in, read_mask, read_moment, with_spoken
from tpo_core.models.wording import label_texts

NO_HEADS: tuple[str, ...] = ()
BOX_TEXT = "[0.1, 0.1, 0.5, 0.5]"  # BOX of 40 x 30 pixels


def spoken_score(task, text):
    example = make_example(task)
    return score(task, example, with_spoken(task, example, answer_with(text=text), NO_HEADS)).scores


@pytest.mark.parametrize("task", HEAD_OF)
def test_what_wording_writes_is_read_back_as_nearly_the_truth(task):
    """Boxes lose up to half a hundredth of the side, and the mask of this clip vanishes in its last frame."""
    text = f"Answer: {label_texts(make_example(task))[0]} seconds ."
    scores = spoken_score(task, text)
    assert min(scores.values()) > {"region": 0.9, "moment": 0.99, "mask": 0.9, "track": 0.9}[task]


def test_fractions_are_taken_as_they_are_and_hundredths_at_the_middle_of_their_cell():
    assert boxes_in(f"It is at {BOX_TEXT}.").tolist() == [[0.1, 0.1, 0.5, 0.5]]
    assert boxes_in("[10,10, 49, 49]").tolist() == [pytest.approx([0.105, 0.105, 0.495, 0.495])]
    assert spoken_score("region", BOX_TEXT) == {"iou": pytest.approx(1.0)}


@pytest.mark.parametrize("text", ["", "left", "[50, 10, 40, 60]", "[1, 2, 3]", "10, 10, 50, 50", "2.0 to 6.0 seconds"])
def test_what_is_no_box_is_no_answer(text):
    assert len(boxes_in(text)) == 0
    assert spoken_score("region", text) == {"iou": 0.0}


def test_a_box_beyond_the_image_ends_at_its_border():
    assert boxes_in("[50, 50, 140, 999]").tolist() == [[0.505, 0.505, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("It happens from 2.0 to 6 seconds.", [[2.0, 6.0]]),
        ("2.00 to 6.00 s", [[2.0, 6.0]]),
        ("in 1.0 to 2.0 and 4.0 to 8.0 seconds.", [[1.0, 2.0], [4.0, 8.0]]),
        ("from 6.0 to 2.0 seconds", []),
        ("count from 1 to 3", []),
        ("none seconds", []),
    ],
)
def test_moments_are_seconds(text, spans):
    found = read_moment(text, make_example("moment"))
    assert ([] if found is None else found.spans_s.tolist()) == spans


def test_of_several_moments_the_first_counts():
    assert spoken_score("moment", "0.0 to 1.0 and 2.0 to 6.0 seconds") == {"iou": 0.0}
    assert spoken_score("moment", "2.0 to 6.0 and 0.0 to 1.0 seconds") == {"iou": 1.0}
    assert SPAN_S == (2.0, 6.0)


def test_boxes_move_on_straight_lines_and_are_absent_around_none():
    first, last, absent = np.zeros(4), np.full(4, 7.0), np.full(4, np.nan)
    assert between(np.stack([first, last]), 8)[:, 0].tolist() == list(range(8))
    found = between(np.stack([first, absent, last]), 8)[:, 0]
    assert np.isnan(found).tolist() == [False, False, False, True, True, True, False, False]
    assert found[[0, 7]].tolist() == [0.0, 7.0]
    assert between(first[None], 3).tolist() == [[0.0] * 4] * 3


def test_a_mask_fills_its_boxes():
    found = read_mask(f"Answer: {BOX_TEXT} {BOX_TEXT} none .", make_example("mask"))
    x0, y0, x1, y1 = map(int, BOX)
    assert found.masks_THW.flatten(1).any(1).tolist() == [True, True, True, False]
    assert found.masks_THW[0, y0:y1, x0:x1].all()
    assert found.masks_THW[0].sum() == (x1 - x0) * (y1 - y0)
    assert found.boxes_T4[0].tolist() == pytest.approx(list(BOX))
    assert read_mask("none none none", make_example("mask")) is None
    assert read_mask("", make_example("mask")) is None


def test_text_is_read_for_heads_that_the_model_has_not():
    example, told = make_example("region"), answer_with(text=BOX_TEXT)
    assert with_spoken("region", example, told, ("region",)) == told, "a missed call stays a miss"
    assert with_spoken("region", example, told, ("temporal",)).activated == ["region"]
    written = replace(told, activated=["region"])  # the indicator, of a model without the head
    assert with_spoken("region", example, written, NO_HEADS).activated == ["region"]


def test_coordinates_in_plain_conversation_are_a_false_activation():
    example = make_example("qa")
    for text, heads in ((BOX_TEXT, ["mask"]), ("from 1.0 to 2.0 seconds", ["temporal"]), (ANSWER, [])):
        assert with_spoken("qa", example, answer_with(text=text), NO_HEADS).activated == heads


def test_a_part_is_measured_by_what_the_answers_say(shards):
    def reply(example):
        task = example.sample.task
        text = ANSWER if task in ("chat", "mcq", "caption") else f"Answer: {label_texts(example)[0]} seconds ."
        return answer_with(text=text, own=())

    found = measure(FakeModel(reply, heads=()), shards, "val", EvaluationConfig(), print).metrics
    assert found["val/region/acc@0.5"] == found["val/moment/r1@0.5"] == found["val/qa/accuracy"] == 1.0
    assert found["val/mask/j"] > 0.9
    assert found["val/track/miou"] > 0.9
    assert (found["val/activation/false"], found["val/activation/missed"]) == (0.0, 0.0)
