from pathlib import Path

import pytest

from tpo_core.data.readers import READERS
from tpo_core.data.readers.mot15 import named_people
from tpo_core.data.sample import TrackEntry, answer_targets, prompt_boxes
from tpo_core.errors import TpoError

REAL = Path(__file__).resolve().parents[4].parent / "shared/realworld"


def read(root, rows, split="all", **options):
    (root / "S").mkdir(exist_ok=True)
    (root / "S/gt.txt").write_text("".join(f"{row}\n" for row in rows))
    return list(READERS["mot15"].read(str(root), split, options))


def test_a_track_for_each_identity(tmp_path):
    rows = ["1,4,11,21,10,20,1,-1,-1,-1", "3,4,31,21,10,20,1,-1,-1,-1", "2,9,1,1,5,5,1,-1,-1,-1", "2,8,1,1,5,5,0,0,0,0"]
    first, second = read(tmp_path, rows, samples="track")
    assert (first.sample_id, first.media[0].uri) == ("mot15/all/S-track-4", "S/video.mp4")
    assert answer_targets(first)[0].track == (
        TrackEntry(0, True, box=(10.0, 20.0, 20.0, 40.0)),
        TrackEntry(1, False),
        TrackEntry(2, True, box=(30.0, 20.0, 40.0, 40.0)),
    )
    assert (prompt_boxes(second)[0].box, prompt_boxes(second)[0].frame) == ((0.0, 0.0, 5.0, 5.0), 1)


def test_people_are_named_only_by_a_clear_margin():
    left, middle, tall = (0.0, 0.0, 10.0, 30.0), (30.0, 0.0, 40.0, 30.0), (60.0, 0.0, 70.0, 60.0)
    assert named_people({1: middle, 2: left, 3: tall}) == {
        "the leftmost person": 2,
        "the rightmost person": 3,
        "the tallest person": 3,
    }
    beside = (3.0, 0.0, 13.0, 31.0)
    assert named_people({1: left, 2: beside}) == {}
    assert named_people({1: left}) == {}


def test_region_samples_point_at_one_frame(tmp_path):
    rows = [f"{frame},{who},{x},1,10,20,1,-1,-1,-1" for frame in (1, 2, 3) for who, x in ((1, 1), (2, 101))]
    samples = read(tmp_path, rows, split="S", samples="region", every="2")
    assert [sample.provenance.native_id for sample in samples] == [
        "S-0-leftmost",
        "S-0-rightmost",
        "S-2-leftmost",
        "S-2-rightmost",
    ]
    assert [(s.targets[0].frame, s.targets[0].object_id) for s in samples] == [(0, "1"), (0, "2"), (2, "1"), (2, "2")]


def test_bad_rows_are_rejected(tmp_path):
    rows = ["1,1,1,1,5,5,1", "1,1,2,2,5,5,1", "x,1,1,1,5,5,1", "0,1,1,1,5,5,1", "2,1,1,1,5,5"]
    *rejects, track = read(tmp_path, rows)
    reasons = [(reject.uri, reject.reason) for reject in rejects]
    assert reasons == [
        ("S/gt.txt:2", "duplicate_box"),
        ("S/gt.txt:3", "bad_line"),
        ("S/gt.txt:4", "bad_frame"),
        ("S/gt.txt:5", "bad_line"),
    ]
    assert len(answer_targets(track)[0].track) == 1


def test_an_unknown_sequence_names_the_known_ones(tmp_path):
    with pytest.raises(TpoError, match="there are all, S"):
        read(tmp_path, [], split="train")
    with pytest.raises(TpoError, match="whole number"):
        read(tmp_path, [], every="0")


@pytest.mark.skipif(not REAL.is_dir(), reason="real footage is absent")
def test_real_streets():
    samples = list(READERS["mot15"].read(str(REAL), "all", {"every": "10"}))
    tracks = [sample for sample in samples if sample.task == "track"]
    assert len({sample.media[0].uri for sample in samples}) == 2
    assert len([s for s in tracks if "TUD-Campus" in s.sample_id]) == 8
    visible = sum(entry.visible for s in tracks for entry in answer_targets(s)[0].track)
    assert visible == 359 + 1156
    assert any(sample.task == "box" for sample in samples)
