import pytest

from tpo_core.data.readers import READERS
from tpo_core.data.sample import UNLABELLED, TrackEntry, answer_targets, prompt_boxes

META = "[METAINFO]\nurl: x\nresolution: (100, 80)\nanno_fps: 10Hz\nobject_class: bear\n"


def write(root, name, boxes, absence=None, cover=None, meta=META):
    folder = root / "train" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "groundtruth.txt").write_text("".join(f"{box}\n" for box in boxes))
    for label, values in (("absence", absence), ("cover", cover)):
        if values is not None:
            (folder / f"{label}.label").write_text("".join(f"{value}\n" for value in values))
    if meta:
        (folder / "meta_info.ini").write_text(meta)


def read(root, **options):
    return list(READERS["got10k"].read(str(root), "train", options))


def test_boxes_become_zero_based_and_absence_comes_from_the_flags(tmp_path):
    write(tmp_path, "S1", ["1,1,10,5", "3.5,2,10,5", "0,0,0,0", "9,9,9,9"], [0, 0, 0, 1], [8, 4, 0, 0])
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task, sample.provenance.origin) == ("got10k/train/S1", "track", 1)
    (track,) = answer_targets(sample)
    assert track.track == (
        TrackEntry(0, True, 1.0, (0.0, 0.0, 10.0, 5.0)),
        TrackEntry(1, True, 0.5, (2.5, 1.0, 12.5, 6.0)),
        TrackEntry(2, False, 0.0),
        TrackEntry(3, False, 0.0),
    )
    (prompt,) = prompt_boxes(sample)
    assert (prompt.box, prompt.frame, prompt.label) == ((0.0, 0.0, 10.0, 5.0), 0, "bear")
    assert "<track_box>" in sample.turns[0].text
    media = sample.media[0]
    assert (media.kind, media.uri, media.width, media.height, media.fps) == ("frames", "train/S1", 100, 80, 10.0)
    assert media.frame_names == tuple(f"0000000{k}.jpg" for k in (1, 2, 3, 4))


def test_negative_sizes_are_absent_and_a_late_first_box_is_flagged(tmp_path):
    write(tmp_path, "S1", ["-1,-1,-1,-1", "5,5,4,4"], meta="")
    (sample,) = read(tmp_path)
    assert [entry.visible for entry in answer_targets(sample)[0].track] == [False, True]
    assert prompt_boxes(sample)[0].frame == 1
    assert sample.provenance.flags == ("late_first_box",)
    assert sample.media[0].width is None


def test_a_box_wholly_outside_is_absent_and_one_that_leaves_is_kept(tmp_path):
    write(tmp_path, "S1", ["1,1,9,9", "96,1,20,9", "120,1,9,9"])
    (sample,) = read(tmp_path)
    assert [entry.box for entry in answer_targets(sample)[0].track] == [
        (0.0, 0.0, 9.0, 9.0),
        (95.0, 0.0, 115.0, 9.0),
        None,
    ]
    assert sample.provenance.flags == ("outside_made_absent",)


def test_videos_instead_of_frames(tmp_path):
    write(tmp_path, "S1", ["1,1,9,9", "1,1,9,9"])
    (sample,) = read(tmp_path, media="mp4")
    assert (sample.media[0].kind, sample.media[0].uri) == ("video", "train/S1/S1.mp4")
    assert read(tmp_path, media="mp4", video="videos/{name}.mp4")[0].media[0].uri == "videos/S1.mp4"


def test_the_list_decides_order_and_membership(tmp_path):
    for name in ("S1", "S2", "S3"):
        write(tmp_path, name, ["1,1,9,9", "1,1,9,9"])
    (tmp_path / "train/list.txt").write_text("S3\nS1\nS9\n")
    *samples, missing = read(tmp_path)
    assert [sample.provenance.native_id for sample in samples] == ["S3", "S1"]
    assert (missing.reason, missing.uri) == ("no_labels", "train/S9/groundtruth.txt:1")


def test_a_test_sequence_has_a_prompt_and_no_track(tmp_path):
    write(tmp_path, "S1", ["1,1,9,9"])
    for k in (1, 2, 3):
        (tmp_path / f"train/S1/{k:08d}.jpg").touch()
    (sample,) = read(tmp_path)
    assert sample.provenance.flags == (UNLABELLED,)
    assert (answer_targets(sample), prompt_boxes(sample)[0].box) == ((), (0.0, 0.0, 9.0, 9.0))
    assert sample.media[0].n_frames == 3


@pytest.mark.parametrize(
    ("boxes", "absence", "reason"),
    [
        (["1,1,9,9", "1,1,9"], None, "bad_record"),
        (["1,1,9,9", "1,1,9,nan"], None, "bad_record"),
        (["1,1,9,9", "1,1,9,9"], [0], "bad_record"),
        (["1,1,9,9", "1,1,9,9"], [1, 1], "track_never_visible"),
        ([], None, "track_never_visible"),
    ],
)
def test_bad_sequences_are_rejected_and_the_others_kept(tmp_path, boxes, absence, reason):
    write(tmp_path, "S1", boxes, absence)
    write(tmp_path, "S2", ["1,1,9,9", "1,1,9,9"])
    reject, sample = read(tmp_path)
    assert (reject.uri, reject.reason) == ("train/S1/groundtruth.txt:1", reason)
    assert sample.provenance.native_id == "S2"
