import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.readers.pngs import left_edges, save, squares
from tpo_core.data import rle
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import answer_targets, prompt_boxes, validate
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"


def coco(x, size=(12, 20)):
    """A mask with a square at x, without pixels for None."""
    index_HW = squares(*([] if x is None else [(1, x)]), size=size)
    return {"size": list(size), "counts": rle.encode(index_HW).counts.decode()}


def content(*objects, n_frames=12.0, **changes):
    """Of a manual or auto file: `objects` are lists of x, one an annotated frame."""
    row = {
        "video_frame_count": n_frames,
        "video_height": 12.0,
        "video_width": 20.0,
        "video_environment": "Indoor",
        "masklet": [[coco(x) for x in column] for column in zip(*objects, strict=True)],
        "masklet_id": list(range(len(objects))),
    }
    return json.dumps({**row, **changes})


def write(root, name, text, folder="sav_train/sav_000"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_text(text)


def read(root, split="train", **options):
    return list(READERS["sa_v"].read(str(root), split, options))


def test_the_facts_of_the_small_layout():
    golden = json.loads((FORMATS / "golden/sa_v.json").read_text())
    samples = read(FORMATS / "input/sa_v", folder="")
    for record, sample in zip(golden["records"], samples, strict=True):
        (target,) = answer_targets(sample)
        assert sample.provenance.native_id == f"{record['video']}-manual-{record['masklet_id']}"
        assert [entry.frame for entry in target.track] == record["annotated_video_frames"]
        assert [not entry.visible for entry in target.track] == record["absent"]
        areas = [int(rle.decode(entry.rle).sum()) if entry.rle else 0 for entry in target.track]
        assert areas == record["areas"]
        assert (sample.media[0].uri, sample.media[0].n_frames) == (f"{record['video']}.mp4", 12)


def test_annotated_frame_k_is_frame_4k_of_the_video(tmp_path):
    write(tmp_path, "sav_000001_manual.json", content([None, 4, 5]))
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task) == ("sa_v/train/sav_000001-manual-0", "track")
    assert left_edges(answer_targets(sample)[0].track) == [(0, None), (4, 4.0), (8, 5.0)]
    assert (prompt_boxes(sample)[0].frame, prompt_boxes(sample)[0].box[0]) == (4, 4.0)
    media = sample.media[0]
    assert (media.uri, media.kind) == ("sav_train/sav_000/sav_000001.mp4", "video")
    assert (media.width, media.height, media.n_frames, media.fps) == (20, 12, 12, None)
    assert validate(sample) == []


def test_manual_and_automatic_masks_are_chosen_and_a_video_may_lack_one(tmp_path):
    write(tmp_path, "sav_000001_manual.json", content([1]))
    write(tmp_path, "sav_000001_auto.json", content([2]))
    write(tmp_path, "sav_000002_manual.json", content([3]), "sav_train")
    ids = {masks: [sample.provenance.native_id for sample in read(tmp_path, masks=masks)] for masks in ("auto", "both")}
    assert ids["auto"] == ["sav_000001-auto-0"]
    assert ids["both"] == ["sav_000002-manual-0", "sav_000001-auto-0", "sav_000001-manual-0"]


def test_the_planted_bad_videos_are_rejected_and_no_other(tmp_path):
    planted = {
        "a": (content([1, 2]), [None]),
        "b": ("{", ["bad_record"]),
        "c": ("[]", ["bad_record"]),
        "d": (content([1, 2], [None, None]), [None, "track_never_visible"]),
        "e": (content([1, 2, 3], n_frames=8), ["frame_out_of_range"]),
        "f": (content([1], masklet=[[coco(1, (9, 9))]]), ["mask_size_mismatch"]),
        "g": (content([1], masklet=[[{"size": [12, 20], "counts": "99"}]]), ["bad_record"]),
        "h": (content([1], masklet=[[]]), ["bad_record"]),
        "i": (content([1], [2]), [None, None]),
    }
    for name, (text, _) in planted.items():
        write(tmp_path, f"{name}_manual.json", text)
    items = read(tmp_path)
    found = [item.reason if isinstance(item, Reject) else None for item in items]
    assert found == [why for _, reasons in planted.values() for why in reasons]
    files = [item.uri.rpartition("/")[2].rpartition(":")[0] for item in items if isinstance(item, Reject)]
    assert files == [f"{name}_manual.json" for name in "bcdefgh"]


def val(root, videos=("v1",)):
    (root / "sav_val").mkdir(exist_ok=True)
    (root / "sav_val/sav_val.txt").write_text("".join(f"{video}\n" for video in videos))
    return root / "sav_val/Annotations_6fps"


def test_val_has_a_folder_an_object_and_its_masks_may_overlap(tmp_path):
    folder = val(tmp_path)
    for k, x in ((0, 4), (4, 5), (8, None)):
        index_HW = np.where(squares(*([] if x is None else [(1, x)])), 255, 0).astype(np.uint8)
        save(folder / f"v1/000/{k:05d}.png", index_HW, "L")
    save(folder / "v1/001/00004.png", squares((1, 5)))
    one, two = read(tmp_path, "val")
    assert (one.sample_id, one.targets[0].object_id) == ("sa_v/val/v1-000", "000")
    assert left_edges(answer_targets(one)[0].track) == [(0, 4.0), (4, 5.0), (8, None)]
    assert left_edges(answer_targets(two)[0].track) == [(4, 5.0)]
    assert two.provenance.flags == ("late_first_box",)
    media = one.media[0]
    assert (media.uri, media.kind, media.fps, media.width) == ("sav_val/JPEGImages_24fps/v1", "frames", 24.0, 20)


def test_the_planted_bad_masks_of_val_are_rejected_and_no_other(tmp_path):
    folder = val(tmp_path, ["v1", "", "gone", "named", "empty", "colours", "v2"])
    for name, frame in (("v1", "00000"), ("named", "first"), ("empty", "00000"), ("colours", "00000"), ("v2", "00000")):
        placed = [] if name == "empty" else [(1, 3)]
        save(folder / name / "000" / f"{frame}.png", squares(*placed), "RGB" if name == "colours" else "P")
    items = read(tmp_path, "val")
    assert [item.reason if isinstance(item, Reject) else None for item in items] == [
        None, "no_labels", "bad_record", "track_never_visible", "bad_record", None,
    ]  # fmt: skip
    assert [item.uri for item in items if isinstance(item, Reject)] == [
        f"sav_val/sav_val.txt:{k}" for k in (3, 4, 5, 6)
    ]


def test_a_missing_split_is_told(tmp_path):
    with pytest.raises(TpoError, match="sav_train"):
        read(tmp_path)
