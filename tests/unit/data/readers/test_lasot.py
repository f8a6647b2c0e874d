import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import TrackEntry, answer_targets, prompt_boxes
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
GOOD = ["1,1,10,20", "5,6,10,20", "7,8,10,20"]


def write(root, name, boxes, occluded=None, out=None, text="a bear"):
    folder = root / name.rpartition("-")[0] / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "groundtruth.txt").write_text("".join(f"{box}\n" for box in boxes))
    for file, flags in (("full_occlusion.txt", occluded), ("out_of_view.txt", out)):
        (folder / file).write_text(",".join(map(str, flags or [0] * len(boxes))))
    if text:
        (folder / "nlp.txt").write_text(text)
    return folder


def read(root, split="all", **options):
    return list(READERS["lasot"].read(str(root), split, options))


def test_the_facts_of_the_small_layout():
    golden = json.loads((FORMATS / "golden/lasot.json").read_text())
    for record, sample in zip(golden["records"], read(FORMATS / "input/lasot"), strict=True):
        (target,) = answer_targets(sample)
        assert (sample.provenance.native_id, target.label) == (record["sequence"], record["language"])
        assert [f"img/{name}" for name in sample.media[0].frame_names] == record["frames"]
        boxes = [None if box is None else tuple(map(float, box)) for box in record["box_xyxy_0based"]]
        assert [entry.box for entry in target.track] == boxes
        assert [entry.visible for entry in target.track] == record["visible"]


def test_absence_comes_from_the_flags_and_boxes_become_zero_based(tmp_path):
    write(tmp_path, "bear-4", ["1,1,10,20", "5,6,10,20", "0,0,0,0", "3,3,4,4"], [0, 1, 0, 0], [0, 0, 0, 1])
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task, sample.provenance.origin) == ("lasot/all/bear-4", "track", 1)
    assert answer_targets(sample)[0].track == (
        TrackEntry(0, True, box=(0.0, 0.0, 10.0, 20.0)),
        TrackEntry(1, False, box=(4.0, 5.0, 14.0, 25.0)),  # absent, with the box that it carries
        TrackEntry(2, True),  # visible, with a box without size
        TrackEntry(3, False, box=(2.0, 2.0, 6.0, 6.0)),
    )
    assert sample.provenance.flags == ("box_missing",)
    assert json.loads(sample.provenance.raw) == {"frames_without_size": [2]}
    assert (sample.media[0].uri, sample.media[0].n_frames) == ("bear/bear-4/img", 4)


def test_the_prompt_is_the_first_visible_box(tmp_path):
    write(tmp_path, "bear-4", GOOD, [1, 0, 0], text="")
    (sample,) = read(tmp_path)
    assert (prompt_boxes(sample)[0].frame, prompt_boxes(sample)[0].box) == (1, (4.0, 5.0, 14.0, 25.0))
    assert (sample.provenance.flags, sample.targets[0].label) == (("late_first_box",), None)


def test_flags_may_stand_on_lines_and_the_class_may_hold_a_hyphen(tmp_path):
    folder = write(tmp_path, "polar-bear-4", GOOD)
    (folder / "out_of_view.txt").write_text("0\n0\n1\n")
    (sample,) = read(tmp_path)
    assert [entry.visible for entry in answer_targets(sample)[0].track] == [True, True, False]
    assert sample.media[0].uri == "polar-bear/polar-bear-4/img"


def test_the_list_of_a_split_decides(tmp_path):
    for name in ("bear-1", "bear-2", "cat-1"):
        write(tmp_path, name, GOOD)
    (tmp_path / "testing_set.txt").write_text("cat-1\n\nbear-1\n")
    (tmp_path / "mine.txt").write_text("bear-2\n")
    assert [sample.sample_id for sample in read(tmp_path, "test")] == ["lasot/test/cat-1", "lasot/test/bear-1"]
    assert [sample.sample_id for sample in read(tmp_path, "train", list="mine.txt")] == ["lasot/train/bear-2"]
    assert len(read(tmp_path)) == 3
    with pytest.raises(TpoError, match=r"training_set\.txt; there is testing_set\.txt"):
        read(tmp_path, "train")


def test_the_planted_bad_sequences_are_rejected_and_no_other(tmp_path):
    planted = {
        "a-1": (GOOD, None),
        "a-2": (["1,1,10,20", "1,1,10"], "bad_record"),
        "a-3": (["1,1,10,20", "1,1,10,nan"], "bad_record"),
        "a-4": (["0,0,0,0", "0,0,0,0"], "track_never_visible"),
        "a-5": ([], "bad_record"),
        "a-6": (GOOD, "bad_record"),
        "a-7": (GOOD, "no_labels"),
        "a-8": (GOOD, None),
    }
    for name, (boxes, _) in planted.items():
        write(tmp_path, name, boxes, [0] if name == "a-6" else None)
    (tmp_path / "a/a-7/out_of_view.txt").unlink()
    (tmp_path / "training_set.txt").write_text("".join(f"{name}\n" for name in [*planted, "a-9"]))
    items = read(tmp_path, "train")
    found = {name: getattr(item, "reason", None) for name, item in zip([*planted, "a-9"], items, strict=True)}
    assert found == {**{name: why for name, (_, why) in planted.items()}, "a-9": "no_labels"}
    for name, item in zip([*planted, "a-9"], items, strict=True):
        assert not isinstance(item, Reject) or item.uri == f"a/{name}/groundtruth.txt:1"
