import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.unit.evaluation.conftest import (
    ANSWER,
    BOX,
    HEAD_OF,
    TASK_OF,
    FakeModel,
    answer_with,
    make_example,
    make_sample,
    prediction_of,
    true_mask,
    write_shards,
)
from tpo_core.config.schema import EvaluationConfig
from tpo_core.data import rle
from tpo_core.data.record import Target, TrackEntry
from tpo_core.data.rle import encode
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import measure as subject
from tpo_core.evaluation.measure import choose, measure, score, summarize
from tpo_core.models.tpo import Answer

HEADS = ("region", "temporal", "mask")
FAR_BOX = (30.0, 20.0, 38.0, 28.0)


def scored(task, answer, **sample):
    return score(task, make_example(task, **sample), answer)


def tracked(task, track, number=0):
    """A sample of which only these frames are labelled."""
    return replace(make_sample(task, number), targets=(Target("track", track=tuple(track)),))


def without_targets(task, number):
    sample = make_sample(task, number)
    return replace(sample, targets=(), turns=(sample.turns[0], replace(sample.turns[1], target_refs=())))


def test_a_limit_takes_samples_at_equal_distances_so_that_every_dataset_is_met():
    samples = [make_sample("region", number, dataset=name) for name in "abcd" for number in range(5)]
    chosen = choose(samples, 4)["region"]
    assert [sample.sample_id for sample in chosen] == [f"{name}/val/region-0" for name in "abcd"]
    assert choose(samples, 4)["region"] == chosen
    assert choose(samples, None)["region"] == choose(samples, 99)["region"] == samples
    numbers = [samples.index(sample) for sample in choose(samples, 7)["region"]]
    assert {after - before for before, after in pairwise(numbers)} <= {2, 3}


def test_tasks_are_chosen_apart_and_a_task_without_a_metric_is_left_out():
    mixed = [make_sample(task, number) for number in range(6) for task in TASK_OF]
    mixed.append(make_sample("qa"))
    chosen = choose(mixed, 2)
    assert {task: len(samples) for task, samples in chosen.items()} == dict.fromkeys(TASK_OF, 2)
    wider = choose(mixed, 2, {"qa": 5})
    assert {task: len(samples) for task, samples in wider.items()} == dict.fromkeys(TASK_OF, 2) | {"qa": 5}
    assert choose([], 3) == {}


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        ("region", {"iou": 1.0}),
        ("moment", {"iou": 1.0}),
        ("mask", {"j": 0.75, "f": 0.75}),  # on one of four frames it is not there, and predicted all the same
        ("track", {"iou": 1.0}),  # overlap counts where the object is
    ],
)
def test_a_prediction_that_is_the_truth(task, scores):
    assert scored(task, answer_with(HEAD_OF[task])).scores == pytest.approx(scores)


@pytest.mark.parametrize(("task", "head"), HEAD_OF.items())
def test_a_missed_activation_is_a_wrong_answer_and_stays_in_the_denominator(task, head):
    missed = scored(task, answer_with(text="It is there."))
    assert missed.found is None
    right = scored(task, answer_with(head))
    metrics = summarize("val", [right, missed])
    first = next(iter(right.scores))
    lone = summarize("val", [right])
    name = {"region": "miou", "moment": "miou", "mask": first, "track": "miou"}[task]
    absent = missed.scores[first]  # masks: both empty on the frame without the object
    assert absent == {"mask": 0.25}.get(task, 0.0)
    assert metrics[f"val/{task}/{name}"] == pytest.approx((lone[f"val/{task}/{name}"] + absent) / 2)
    assert metrics["val/activation/missed"] == 0.5


@pytest.mark.parametrize(
    ("labelled", "j"),
    [
        ([TrackEntry(0, True, rle=encode(true_mask()))], 1.0),
        ([TrackEntry(0, True, rle=encode(true_mask())), TrackEntry(4, False)], 0.5),
    ],
)
def test_stored_frames_without_a_label_do_not_count_and_absent_ones_do(labelled, j):
    example = replace(make_example("mask"), sample=tracked("mask", labelled))
    found = score("mask", example, answer_with("mask"))  # it says: there on all four frames
    assert found.scores == pytest.approx({"j": j, "f": j})
    assert score("mask", example, answer_with()).scores["j"] == 1 - j


def test_what_cannot_be_scored_is_not_asked_and_told(tmp_path):
    unseen = [tracked("track", [TrackEntry(0, False), TrackEntry(1, True, box=BOX)], number) for number in (1, 2)]
    unlabelled = [tracked("mask", [TrackEntry(1, True, rle=encode(true_mask()))]), without_targets("moment", 1)]
    samples = [make_sample("track"), make_sample("moment"), *unseen, *unlabelled]
    shards, lines = ShardSet.open(write_shards(tmp_path / "shards", {"val": samples})), []
    measured = measure(FakeModel(), shards, "val", EvaluationConfig(), lines.append)
    assert lines[0] == "evaluate  val  left out: 1 mask, 1 moment, 2 track without a label to compare with"
    assert measured.counts == {"moment": 1, "track": 1}
    assert measured.metrics["val/track/miou"] == measured.metrics["val/moment/miou"] == 1.0
    assert not any("mask" in name for name in measured.metrics)


def test_the_right_answer_is_found_among_several_heads_but_activation_was_wrong():
    both = scored("region", answer_with("temporal", "region"))
    assert both.scores == {"iou": 1.0}
    assert summarize("val", [both]) == {
        "val/region/acc@0.5": 1.0,
        "val/region/miou": 1.0,
        "val/activation/missed": 1.0,
        "val/activation/called": 0.0,
    }


def test_another_head_does_not_count_for_the_one_asked():
    assert scored("moment", answer_with("region")).scores == {"iou": 0.0}
    assert scored("track", answer_with("temporal")).prediction == [None] * 4


def test_a_base_model_calls_heads_that_it_has_not():
    said = answer_with("region", own=())
    assert said.found == []
    answered = scored("region", said)
    assert answered.scores == {"iou": 0.0}
    assert answered.row()["activated"] == ["region"]
    assert summarize("val", [answered])["val/activation/called"] == 1.0


@pytest.mark.parametrize(("task", "iou"), [("region", 1.0), ("moment", 0.0)])
def test_a_model_with_some_heads_keeps_each_prediction_with_its_head(task, iou):
    said = answer_with("temporal", "region", own=("region",))
    assert scored(task, said).scores == {"iou": iou}


def test_of_several_calls_of_a_head_the_first_one_counts():
    calls = [("region", prediction_of("region", box)) for box in (FAR_BOX, BOX)]
    assert scored("region", Answer("", [], calls, ["region"])).scores == {"iou": 0.0}
    assert scored("region", Answer("", [], calls[::-1], ["region"])).scores == {"iou": 1.0}


def test_a_task_head_in_plain_conversation_is_a_false_activation():
    quiet, loud = scored("qa", answer_with(text=ANSWER)), scored("caption", answer_with("region", text="A red ball."))
    assert summarize("val", [quiet, loud]) == {
        "val/qa/accuracy": 1.0,
        "val/activation/false": 0.5,
        "val/activation/quiet": 0.5,
    }


def test_answers_in_words_are_compared_without_case_articles_and_stops():
    texts = ["The red.", "blue", ""]
    metrics = summarize("val", [scored("qa", answer_with(text=text)) for text in texts])
    assert metrics["val/qa/accuracy"] == pytest.approx(1 / 3)


def test_accuracy_counts_boxes_that_overlap_by_half():
    near = (BOX[0], BOX[1], BOX[2], BOX[1] + (BOX[3] - BOX[1]) * 0.6)
    answers = [Answer("", [], [("region", prediction_of("region", box))], ["region"]) for box in (BOX, near, FAR_BOX)]
    metrics = summarize("test", [scored("region", answer) for answer in answers])
    assert metrics["test/region/acc@0.5"] == pytest.approx(2 / 3)
    assert metrics["test/region/miou"] == pytest.approx(1.6 / 3)


def test_rows_are_plain_json_without_nan():
    for task in TASK_OF:
        for answer in (answer_with(HEAD_OF.get(task, "region")), answer_with(text=ANSWER)):
            row = scored(task, answer).row()
            assert json.loads(json.dumps(row, allow_nan=False)) == row
    track = scored("track", answer_with("mask")).row()
    assert track["truth"] == [list(BOX)] * 3 + [None]
    assert track["request"] == "What colour is the ball?"


def test_a_part_is_measured_in_batches_and_told(shards):
    model, lines = FakeModel(), []
    config = EvaluationConfig(limit_per_task=2, batch_size=2)
    measured = measure(model, shards, "val", config, lines.append)
    assert measured.counts == dict.fromkeys(TASK_OF, 2)
    assert model.batches == [2] * len(TASK_OF)
    assert model.asked == sorted(model.asked), "requests about one media come together"
    assert len(measured.scored) == 2 * len(TASK_OF) == len({one.example.sample.sample_id for one in measured.scored})
    assert len(lines) == 1
    assert lines[0].startswith("evaluate  val  14/14  in ")
    assert measured.metrics["val/region/acc@0.5"] == measured.metrics["val/moment/r1@0.7"] == 1.0
    assert measured.metrics["val/activation/called"] == measured.metrics["val/activation/quiet"] == 1.0
    assert all(0 <= value <= 1 and math.isfinite(value) for value in measured.metrics.values())


def test_long_work_tells_the_time_left(shards, monkeypatch):
    monkeypatch.setattr(subject, "TELL_EVERY_S", 0.0)
    lines = []
    measure(FakeModel(), shards, "val", EvaluationConfig(limit_per_task=2, batch_size=5), lines.append)
    assert [line.split("  ")[2] for line in lines] == ["5/14", "10/14", "14/14"]
    assert all(line.endswith(" s left") for line in lines[:-1])


def test_every_model_is_asked_the_same(shards):
    config = EvaluationConfig(limit_per_task=2, batch_size=5)
    asked = [
        [one.example.sample.sample_id for one in measure(model, shards, "val", config, lambda line: None).scored]
        for model in (FakeModel(), FakeModel(lambda example: answer_with(), heads=()))
    ]
    assert asked[0] == asked[1]


def test_a_prediction_is_compared_at_the_size_of_the_original():
    answered = scored("mask", answer_with("mask"))
    assert np.asarray(answered.found.masks_THW).shape == (4, 30, 40)


def test_predicted_masks_are_run_lengths_in_the_row():
    row = json.loads(json.dumps(scored("mask", answer_with("mask")).row()))
    found = [rle.decode(rle.from_coco(mask, 30, 40)) for mask in row["prediction"]]
    assert np.array_equal(found, [true_mask()] * 4)
    assert scored("mask", answer_with(text="There.")).row()["prediction"] is None
