import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError

VIDEO = {
    "duration": 241.62,
    "subset": "training",
    "recipe_type": "113",
    "annotations": [
        {"segment": [90, 102], "id": 0, "sentence": "spread margarine on two slices"},
        {"segment": [114, 300], "id": 1, "sentence": "place cheese on top. "},
    ],
}


def read(root, videos, split="training", **options):
    (root / "youcookii_annotations_trainval.json").write_text(json.dumps({"database": videos}))
    return list(READERS["youcook2"].read(str(root), split, options))


def test_a_recipe_is_a_timed_caption(tmp_path):
    (sample,) = read(tmp_path, {"GLd": VIDEO}, video="{split}/{recipe}/{name}.webm")
    assert (sample.sample_id, sample.task) == ("youcook2/training/GLd", "dense_caption")
    assert sample.media[0].uri == "training/113/GLd.webm"
    assert sample.turns[1].text == (
        "90.0 - 102.0 seconds, spread margarine on two slices.  114.0 - 241.6 seconds, place cheese on top."
    )
    assert [t.span_s for t in sample.targets] == [(90.0, 102.0), (114.0, 241.62)]
    assert sample.provenance.flags == ("end_clipped",)


def test_by_option_each_sentence_is_a_moment(tmp_path):
    first, second = read(tmp_path, {"GLd": VIDEO}, task="span")
    assert (first.sample_id, first.task) == ("youcook2/training/GLd-0", "span")
    assert first.targets[0].label == "spread margarine on two slices"
    assert (second.targets[0].span_s, second.provenance.flags) == ((114.0, 241.62), ("end_clipped",))


def test_subsets_are_apart_and_rows_count_the_whole_file(tmp_path):
    videos = {"a": VIDEO, "b": {**VIDEO, "subset": "validation"}}
    (sample,) = read(tmp_path, videos, split="validation")
    assert (sample.sample_id, sample.provenance.row) == ("youcook2/validation/b", 1)
    with pytest.raises(TpoError, match="no videos of subset 'testing'; it has training, validation"):
        read(tmp_path, videos, split="testing")


@pytest.mark.parametrize(
    ("task", "kept"), [("dense_caption", ["good", "bad"]), ("span", ["good-0", "good-1", "bad-7"])]
)
def test_exactly_the_planted_faults_are_rejected(tmp_path, task, kept):
    events = [
        {"segment": [1, 2], "id": 7, "sentence": "stir"},
        {"segment": [5, 4], "id": 8, "sentence": "stir"},
        {"segment": [5, 9], "id": 9, "sentence": ""},
        {"segment": [5, 5], "id": 10, "sentence": "stir"},
        {"segment": [400, 405], "id": 11, "sentence": "stir"},
    ]
    videos = {"good": VIDEO, "bad": {**VIDEO, "annotations": events}, "flat": {**VIDEO, "duration": "long"}}
    items = read(tmp_path, videos, task=task)
    rejects = [(item.uri.rpartition(":")[2], item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        ("2", "moment_reversed"),
        ("2", "bad_record"),
        ("2", "moment_empty"),
        ("2", "moment_past_end"),
        ("3", "bad_record"),
    ]
    assert [item.provenance.native_id for item in items if not isinstance(item, Reject)] == kept


def test_the_first_samples_come_although_the_file_is_broken_later(tmp_path):
    text = json.dumps({"database": {f"v{k}": VIDEO for k in range(2000)}})[:-50]
    (tmp_path / "youcookii_annotations_trainval.json").write_text(text)
    items = READERS["youcook2"].read(str(tmp_path), "training", {})
    assert next(items).sample_id == "youcook2/training/v0"
