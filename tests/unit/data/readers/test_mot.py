from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject, mot
from tpo_core.data.readers._people import named_people
from tpo_core.data.readers._tracks import followed
from tpo_core.data.sample import TrackEntry, answer_targets, prompt_boxes
from tpo_core.errors import TpoError

REAL = Path(__file__).resolve().parents[4].parent / "shared/realworld"
INFO = "[Sequence]\nname=S\nimDir=img1\nframeRate=25\nseqLength=3\nimWidth=100\nimHeight=50\nimExt=.jpg\n"


def write(folder, rows, info=None, truth="gt/gt.txt"):
    path = folder / truth
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))
    if info:
        (folder / "seqinfo.ini").write_text(info)


def read(root, rows, split="all", truth="gt.txt", info=None, **options):
    write(root / "S", rows, info, truth)
    return list(READERS["mot"].read(str(root), split, options))


def test_a_track_for_each_identity(tmp_path):
    rows = ["1,4,11,21,10,20,1,-1,-1,-1", "3,4,31,21,10,20,1,-1,-1,-1", "2,9,1,1,5,5,1,-1,-1,-1", "2,8,1,1,5,5,0,0,0,0"]
    first, second = read(tmp_path, rows, samples="track", media="mp4")
    assert (first.sample_id, first.media[0].uri) == ("mot/all/S-track-4", "S/video.mp4")
    assert first.provenance.origin == 1
    assert answer_targets(first)[0].track == (
        TrackEntry(0, True, box=(10.0, 20.0, 20.0, 40.0)),
        TrackEntry(1, False),
        TrackEntry(2, True, box=(30.0, 20.0, 40.0, 40.0)),
    )
    assert (prompt_boxes(second)[0].box, prompt_boxes(second)[0].frame) == ((0.0, 0.0, 5.0, 5.0), 1)
    assert second.provenance.flags == ("late_first_box",)


def test_other_classes_are_not_read_and_visibility_is(tmp_path):
    rows = ["1,1,1,1,9,9,1,1,0.25", "1,2,1,1,9,9,1,8,1", "2,3,1,1,9,9,0,1,1", "2,1,-5,1,9,9,1,1,0"]
    (track,) = read(tmp_path, rows, truth="gt/gt.txt", info=INFO, samples="track")
    assert answer_targets(track)[0].track == (
        TrackEntry(0, True, 0.25, (0.0, 0.0, 9.0, 9.0)),
        TrackEntry(1, True, 0.0, (-6.0, 0.0, 3.0, 9.0)),
        TrackEntry(2, False),  # the sequence is 3 frames long
    )


def test_mot15_has_world_coordinates_where_others_have_the_class(tmp_path):
    (track,) = read(tmp_path, ["1,1,1,1,9,9,1,7.5,3.1,0"], samples="track")
    assert answer_targets(track)[0].track[0].visible_ratio is None


def test_the_sequence_info_describes_the_media(tmp_path):
    (track,) = read(tmp_path, ["1,1,1,1,9,9,1,1,1"], truth="gt/gt.txt", info=INFO)
    media = track.media[0]
    assert (media.kind, media.uri, media.width, media.height, media.fps) == ("frames", "S/img1", 100, 50, 25.0)
    assert media.frame_names == ("000001.jpg", "000002.jpg", "000003.jpg")


def test_a_split_is_a_folder_of_sequences_and_mot17_is_read_once(tmp_path):
    for detector in ("DPM", "FRCNN", "SDP"):
        write(tmp_path / f"train/MOT17-02-{detector}", ["1,1,1,1,9,9,1,1,1"], INFO)
    write(tmp_path / "train/MOT20-01", ["1,1,1,1,9,9,1,1,1"], INFO)
    (tmp_path / "train/MOT20-02").mkdir()
    (tmp_path / "train/MOT20-02/seqinfo.ini").write_text(INFO)

    def names(**options):
        items = READERS["mot"].read(str(tmp_path), "train", options)
        return [item.reason if isinstance(item, Reject) else item.provenance.native_id for item in items]

    assert names() == ["MOT17-02-FRCNN-track-1", "MOT20-01-track-1", "no_labels"]
    assert names(detector="SDP")[0] == "MOT17-02-SDP-track-1"
    assert len(names(detector="all")) == 5


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


def test_the_planted_bad_rows_are_rejected_and_no_other(tmp_path):
    rows = [
        "1,1,1,1,5,5,1",
        "1,1,2,2,5,5,1",
        "x,1,1,1,5,5,1",
        "0,1,1,1,5,5,1",
        "2,1,1,1,5,5",
        "2,1,1,1,0,5,1",
        "2,1,nan,1,5,5,1",
        "",
        "4,1,1,1,5,5,1",
        "3,1,1,1,5,5,1",
    ]
    *rejects, track = read(tmp_path, rows, info=INFO)
    assert [(reject.uri, reject.reason) for reject in rejects] == [
        ("S/gt.txt:2", "duplicate_box"),
        ("S/gt.txt:3", "bad_record"),
        ("S/gt.txt:4", "frame_out_of_range"),
        ("S/gt.txt:5", "bad_record"),
        ("S/gt.txt:6", "box_empty"),
        ("S/gt.txt:7", "bad_record"),
        ("S/gt.txt:9", "frame_out_of_range"),
    ]
    assert [entry.visible for entry in answer_targets(track)[0].track] == [True, False, True]


def test_a_bad_sequence_info_rejects_that_sequence(tmp_path):
    write(tmp_path / "A", ["1,1,1,1,5,5,1"], INFO.replace("=100", "=wide"))
    reject, track = read(tmp_path, ["1,1,1,1,5,5,1"])
    assert (reject.uri, reject.reason) == ("A/gt/gt.txt:1", "bad_record")
    assert track.provenance.native_id == "S-track-1"


def test_an_unknown_sequence_names_the_known_ones(tmp_path):
    with pytest.raises(TpoError, match="there are all, S"):
        read(tmp_path, [], split="train")
    with pytest.raises(TpoError, match="whole number"):
        read(tmp_path, [], every="0")


@pytest.mark.skipif(not REAL.is_dir(), reason="real footage is absent")
def test_real_streets():
    samples = list(READERS["mot"].read(str(REAL), "all", {"every": "10", "media": "mp4"}))
    tracks = [sample for sample in samples if sample.task == "track"]
    assert len({sample.media[0].uri for sample in samples}) == 2
    assert len([s for s in tracks if "TUD-Campus" in s.sample_id]) == 8
    visible = sum(entry.visible for s in tracks for entry in answer_targets(s)[0].track)
    assert visible == 359 + 1156
    assert any(sample.task == "box" for sample in samples)


def test_tracks_come_one_after_another(tmp_path, monkeypatch):
    """Those of MOT20-05 (1,211 persons, 3,315 frames) take a GiB when they are held together."""
    made = []
    monkeypatch.setattr(mot, "followed", lambda *args, **named: made.append(args[1]) or followed(*args, **named))
    write(tmp_path / "S", [f"1,{identity},1,1,9,9,1,1,1" for identity in range(9)], INFO)
    items = READERS["mot"].read(str(tmp_path), "all", {"samples": "track"})
    assert next(items).provenance.native_id == "S-track-0"
    assert made == ["S-track-0"]
    assert len(list(items)) == 8


def test_a_sequence_whose_facts_are_no_numbers_is_one_reject(tmp_path):
    items = read(
        tmp_path, ["1,1,1,1,9,9,1,1,1"], truth="gt/gt.txt", info=INFO.replace("seqLength=3", "seqLength=three")
    )
    assert [(item.reason, item.detail[:2]) for item in items] == [("bad_record", "S:")]
    stray = read(tmp_path, ['1,1,1,1,"9,9,1,1,1', "2,1,1,1,9,9,1,1,1"], truth="gt/gt.txt", info=INFO, samples="track")
    assert [isinstance(item, Reject) for item in stray] == [True, False]  # a stray quote costs its row alone
