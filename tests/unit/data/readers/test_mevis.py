import json

import numpy as np
import pytest

from tpo_core.data import rle
from tpo_core.data.readers import READERS
from tpo_core.data.sample import UNLABELLED
from tpo_core.errors import TpoError

FRAMES = ["00004", "00008", "00010"]  # names are not positions


def square(x, size=3):
    mask_HW = np.zeros((12, 20), dtype=bool)
    mask_HW[2 : 2 + size, x : x + size] = True
    return {"size": [12, 20], "counts": rle.encode(mask_HW).counts.decode()}


MASKS = {"12": [square(0), None, square(0, 0)], "13": [square(10), square(11), None]}


def read(root, expressions, masks=MASKS, split="train", **options):
    folder = root / split
    folder.mkdir(exist_ok=True)
    entry = {"frames": FRAMES, "expressions": {str(i): expression for i, expression in enumerate(expressions)}}
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": {"v1": entry}}))
    if masks is not None:
        (folder / "mask_dict.json").write_text(json.dumps(masks))
    return list(READERS["mevis"].read(str(root), split, options))


def test_the_target_is_the_union_of_the_parts(tmp_path):
    (sample,) = read(tmp_path, [{"exp": " the cats ", "obj_id": [0, 1], "anno_id": [12, 13]}])
    assert (sample.sample_id, sample.task) == ("mevis/train/v1-0", "mask")
    (target,) = sample.targets
    assert (target.label, target.object_id, target.set_rule) == ("the cats", "0,1", "union")
    assert [(entry.frame, entry.visible) for entry in target.track] == [(0, True), (1, True), (2, False)]
    assert [entry.box for entry in target.track] == [(0.0, 2.0, 13.0, 5.0), (11.0, 2.0, 14.0, 5.0), None]
    assert rle.decode(target.track[0].rle).sum() == 18
    assert target.track[2].rle is None
    media = sample.media[0]
    assert (media.kind, media.uri, media.n_frames) == ("frames", "train/JPEGImages/v1", 3)
    assert media.frame_names == ("00004.jpg", "00008.jpg", "00010.jpg")
    assert (media.width, media.height) == (20, 12)
    assert "the cats" in sample.turns[0].text
    assert sample.turns[1].text == "Answer: <track_begin><tracking> ."


def test_videos_instead_of_frames(tmp_path):
    expression = {"exp": "a cat", "obj_id": [1], "anno_id": [13]}
    (sample,) = read(tmp_path, [expression], media="mp4")
    assert (sample.media[0].kind, sample.media[0].uri) == ("video", "train/videos/v1.mp4")
    assert (sample.media[0].n_frames, sample.media[0].frame_names) == (3, None)
    (moved,) = read(tmp_path, [expression], media="mp4", video="clips/{name}.mp4")
    assert moved.media[0].uri == "clips/v1.mp4"


def test_a_split_without_masks_is_readable(tmp_path):
    (sample,) = read(tmp_path, [{"exp": "a cat"}], masks=None, split="valid")
    assert (sample.targets, sample.provenance.flags) == ((), (UNLABELLED,))


def test_labels_without_their_masks_are_a_user_error(tmp_path):
    with pytest.raises(TpoError, match=r"mask_dict\.json"):
        read(tmp_path, [{"exp": "a cat", "anno_id": [12]}], masks=None)


@pytest.mark.parametrize(
    ("anno_id", "masks", "reason", "detail"),
    [
        ([99], MASKS, "bad_record", "not in mask_dict"),
        ([12], {"12": [square(0)]}, "bad_record", "1 masks for 3 frames"),
        ([12], {"12": [{"size": [12, 20], "counts": "99"}, None, None]}, "bad_record", "mask runs cover"),
        ([12], {"12": [None, None, None]}, "track_never_visible", ""),
        ([12], {"12": [square(0), None, {"size": [3, 3], "counts": [0, 9]}]}, "mask_size_mismatch", ""),
        ([12], {"12": [{"size": [12, 20], "counts": [10**30]}, None, None]}, "bad_record", "OverflowError"),
        (12, {}, "bad_record", "TypeError"),
    ],
)
def test_bad_expressions_are_rejected_and_the_others_kept(tmp_path, anno_id, masks, reason, detail):
    good = {"exp": "a dog", "anno_id": [50]}
    reject, sample = read(tmp_path, [{"exp": "a cat", "anno_id": anno_id}, good], {**masks, "50": [square(1)] * 3})
    assert (reject.uri, reject.reason) == ("train/meta_expressions.json:1", reason)
    assert detail in reject.detail
    assert sample.provenance.row == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"frames": FRAMES},
        {"expressions": {"0": {"exp": "a cat", "anno_id": [12]}}},
        {"frames": FRAMES, "expressions": [{"exp": "a cat"}]},
        {"frames": FRAMES, "expressions": {"0": "a cat"}},
        None,
    ],
)
def test_a_video_of_another_shape_is_rejected_and_the_others_kept(tmp_path, broken):
    good = {"frames": FRAMES, "expressions": {"0": {"exp": "a dog", "anno_id": [13]}}}
    (tmp_path / "train").mkdir()
    (tmp_path / "train/meta_expressions.json").write_text(json.dumps({"videos": {"v0": broken, "v1": good}}))
    (tmp_path / "train/mask_dict.json").write_text(json.dumps(MASKS))
    reject, sample = READERS["mevis"].read(str(tmp_path), "train", {})
    assert (reject.uri, reject.reason) == ("train/meta_expressions.json:1", "bad_record")
    assert reject.detail.startswith("v0")
    assert (sample.sample_id, sample.provenance.row) == ("mevis/train/v1-0", 1)


@pytest.mark.parametrize("content", [[], {}, {"videos": []}])
def test_another_file_is_a_user_error(tmp_path, content):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/meta_expressions.json").write_text(json.dumps(content))
    with pytest.raises(TpoError, match="has no `videos`"):
        list(READERS["mevis"].read(str(tmp_path), "train", {}))
