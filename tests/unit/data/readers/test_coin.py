import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError

VIDEO = {
    "duration": 131.03,
    "class": "ReplaceCDDriveWithSSD",
    "recipe_type": 131,
    "subset": "training",
    "start": 56.6,
    "end": 85.7,
    "annotation": [
        {"id": "212", "segment": [60.0, 69.0], "label": "take out the laptop CD drive"},
        {"id": "216", "segment": [71.0, 82.0], "label": "insert the hard disk tray"},
    ],
}


def read(root, videos, split="training", **options):
    (root / "COIN.json").write_text(json.dumps({"database": videos}))
    return list(READERS["coin"].read(str(root), split, options))


def test_steps_are_a_timed_caption_and_the_annotated_part_is_none(tmp_path):
    (sample,) = read(tmp_path, {"LtR": VIDEO})
    assert (sample.sample_id, sample.task) == ("coin/training/LtR", "dense_caption")
    assert (sample.media[0].uri, sample.media[0].duration_s) == ("videos/131/LtR.mp4", 131.03)
    assert [(t.kind, t.object_id, t.span_s) for t in sample.targets] == [
        ("span", "212", (60.0, 69.0)),
        ("span", "216", (71.0, 82.0)),
    ]
    assert sample.turns[1].text == (
        "60.0 - 69.0 seconds, take out the laptop CD drive.  71.0 - 82.0 seconds, insert the hard disk tray."
    )
    assert json.loads(sample.provenance.raw) == {"class": "ReplaceCDDriveWithSSD", "roi_s": [56.6, 85.7]}


@pytest.mark.parametrize("stored", ["testing", "validation"])
@pytest.mark.parametrize("asked", ["testing", "validation"])
def test_the_second_subset_is_read_under_both_of_its_names(tmp_path, stored, asked):
    items = read(tmp_path, {"a": VIDEO, "b": {**VIDEO, "subset": stored}}, split=asked)
    assert [(item.sample_id, item.provenance.row) for item in items] == [(f"coin/{asked}/b", 1)]


def test_an_unknown_subset_is_a_user_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(TpoError, match="no videos of subset 'train'; it has training"):
        read(tmp_path, {"a": VIDEO}, split="train")


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    def steps(*segments):
        return {**VIDEO, "annotation": [{"id": "1", "segment": list(s), "label": "x"} for s in segments]}

    videos = {
        "good": VIDEO,
        "mixed": steps([60, 69], [5, 5], [9, 8], [140, 150], [-1, 3], [1]),
        "none": steps(),
        "all": steps([7, 7]),
        "flat": {"subset": "training"},
        "null": None,
        "last": VIDEO,
    }
    items = read(tmp_path, videos)
    rejects = [(item.uri, item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        ("COIN.json:2", "moment_empty"),
        ("COIN.json:2", "moment_reversed"),
        ("COIN.json:2", "moment_past_end"),
        ("COIN.json:2", "moment_before_start"),
        ("COIN.json:2", "bad_record"),
        ("COIN.json:3", "no_labels"),
        ("COIN.json:4", "moment_empty"),
        ("COIN.json:5", "bad_record"),
        ("COIN.json:6", "bad_record"),
    ]
    assert [i.provenance.native_id for i in items if not isinstance(i, Reject)] == ["good", "mixed", "last"]
