from dataclasses import replace

import pytest

from tests.unit.evaluation.conftest import FakeModel, make_sample, true_mask, write_shards
from tpo_core.config.schema import EvaluationConfig
from tpo_core.data.record import Media, Target, TrackEntry
from tpo_core.data.rle import encode
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.constants import constant_baselines, question_type
from tpo_core.evaluation.measure import measure


def baselines_of(shards, part="val"):
    asked = measure(FakeModel(), shards, part, EvaluationConfig(), lambda line: None)
    return constant_baselines(shards, part, asked.scored), asked.metrics


def test_constants_of_train_are_scored_under_the_names_of_the_model(shards):
    constant, metrics = baselines_of(shards)
    assert set(constant) == {name for name in metrics if "/activation/" not in name}
    # Every truth of the set is the same, so a constant answer is right wherever the object is.
    for name in ("region/miou", "moment/miou", "track/miou", "qa/accuracy"):
        assert constant[f"val/{name}"] == pytest.approx(1.0)
    assert constant["val/mask/j"] == pytest.approx(0.75)


def test_the_whole_clip_stands_for_moments_where_it_is_the_better_guess(tmp_path):
    train = replace(make_sample("moment", dataset="train"), targets=(Target("span", span_s=(7.0, 8.0)),))
    held_out = make_sample("moment", dataset="val")
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"train": [train], "val": [held_out]}))
    constant, _ = baselines_of(shards)
    assert constant["val/moment/miou"] == pytest.approx(0.5)  # 2 to 6 of 0 to 8 s
    assert constant["val/moment/r1@0.7"] == 0.0


def test_without_a_part_train_there_are_none(tmp_path):
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"val": [make_sample("region")]}))
    assert baselines_of(shards)[0] == {}


def test_a_task_that_train_lacks_has_none(tmp_path):
    parts = {"train": [make_sample("qa", dataset="train")], "val": [make_sample("mask"), make_sample("qa")]}
    shards = ShardSet.open(write_shards(tmp_path / "shards", parts))
    assert baselines_of(shards)[0] == {"val/qa/accuracy": 1.0}


def test_masks_without_any_box_in_train_have_none(tmp_path):
    parts = {"train": [make_sample("mask", dataset="train")], "val": [make_sample("mask")]}
    shards = ShardSet.open(write_shards(tmp_path / "shards", parts))
    assert baselines_of(shards)[0] == {}


def test_the_length_of_a_clip_is_that_of_its_stored_media(tmp_path):
    """A folder of frames without a rate: only decoding knew how long it is."""
    train = make_sample("moment", dataset="train")
    train = replace(train, media=(Media(train.media[0].uri, "frames", 40, 30, n_frames=16),))
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"train": [train], "val": [make_sample("moment")]}))
    assert baselines_of(shards)[0]["val/moment/miou"] == pytest.approx(1.0)  # 2 to 6 of 8 s in both


def test_masks_are_compared_on_the_frames_that_the_model_is_measured_on(tmp_path):
    there = TrackEntry(0, True, rle=encode(true_mask()))
    held_out = [replace(make_sample("mask"), targets=(Target("track", track=(there,)),))]
    held_out.append(replace(make_sample("track"), targets=(Target("track", track=(TrackEntry(0, False),)),)))
    train = [make_sample(task, dataset="train") for task in ("region", "mask", "track")]
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"train": train, "val": held_out}))
    constant, metrics = baselines_of(shards)
    assert constant == pytest.approx({"val/mask/j": 1.0, "val/mask/f": 1.0, "val/mask/j&f": 1.0})
    assert {name for name in metrics if "/activation/" not in name} == set(constant)


def test_no_mask_stands_for_masks_where_it_is_the_better_guess(tmp_path):
    held_out = replace(
        make_sample("mask"), targets=(Target("track", track=(TrackEntry(0, False), TrackEntry(4, False))),)
    )
    train = [make_sample("region", dataset="train"), make_sample("mask", dataset="train")]
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"train": train, "val": [held_out]}))
    assert baselines_of(shards)[0]["val/mask/j"] == 1.0


def test_a_moment_without_a_label_in_train_is_passed_over(tmp_path):
    labelled = make_sample("moment", dataset="train")
    bare = replace(make_sample("moment", 1, dataset="train"), targets=(), turns=labelled.turns[:1])
    for train, names in (([labelled, bare], 4), ([bare], 0)):
        parts = {"train": train, "val": [make_sample("moment")]}
        shards = ShardSet.open(write_shards(tmp_path / f"shards-{len(train)}", parts))
        assert len(baselines_of(shards)[0]) == names


def test_questions_are_of_a_type_by_their_first_two_words():
    assert question_type(make_sample("qa")) == "what colour"
