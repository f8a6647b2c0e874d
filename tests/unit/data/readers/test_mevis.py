import json

import numpy as np
import pytest

from tpo_core.data import rle
from tpo_core.data.readers import READERS, mevis
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
        ([12], {"12": [{"size": [12, 20], "counts": [10**18]}, None, None]}, "bad_record", "mask runs cover"),
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


def video(*anno_ids):
    return {"frames": FRAMES, "expressions": {"0": {"exp": "a cat", "anno_id": list(anno_ids)}}}


def write(root, videos, mask_text):
    (root / "train").mkdir()
    (root / "train/meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (root / "train/mask_dict.json").write_text(mask_text)
    return READERS["mevis"].read(str(root), "train", {})


def ids_of(samples):
    return [sample.provenance.native_id for sample in samples]


def test_samples_come_before_the_mask_file_is_read_to_its_end(tmp_path):
    lists = json.dumps({"1": [square(1)] * 3, "2": [square(2)] * 3})[:-1]
    unused = "".join(f', "{k}": []' for k in range(100, 20_000))
    samples = write(tmp_path, {"v1": video(1), "v2": video(2), "v3": video(3)}, f"{lists}{unused}, broken")
    assert ids_of([next(samples), next(samples)]) == ["v1-0", "v2-0"]
    with pytest.raises(TpoError, match=r"mask_dict\.json is not JSON"):
        list(samples)


def test_masks_in_any_order_reach_their_video(tmp_path):
    boxes = {"5": 4, "1": 0, "9": 9, "2": 1}
    masks = json.dumps({anno_id: [square(x)] * 3 for anno_id, x in boxes.items()})
    videos = {
        "v1": video(1, 2),
        "v2": video(5),
        "v3": video(7),
        "v4": video(9, 1),
        "v5": {**video(), "expressions": {}},
    }
    *samples, missing = write(tmp_path, videos, masks)
    tracks = {sample.provenance.native_id: sample.targets[0].track for sample in samples}
    assert list(tracks) == ["v2-0", "v4-0", "v1-0"]  # in the order in which their last list is read
    assert {name: track[0].box[0::2] for name, track in tracks.items()} == {
        "v2-0": (4.0, 7.0),
        "v4-0": (0.0, 12.0),
        "v1-0": (0.0, 4.0),
    }
    assert (missing.uri, missing.reason) == ("train/meta_expressions.json:3", "bad_record")
    assert "anno_id 7 is not in mask_dict.json" in missing.detail


def test_masks_of_a_finished_video_are_dropped(tmp_path, monkeypatch):
    alive = []

    class Masks(list):
        def __del__(self):
            alive.remove(id(self))

    def lists(*_):
        for anno_id in range(20):
            masks = Masks([square(1)] * 3)
            alive.append(id(masks))
            yield str(anno_id), masks

    monkeypatch.setattr(mevis, "stream_pairs", lists)
    most = [len(alive) for _ in write(tmp_path, {f"v{k}": video(2 * k, 2 * k + 1) for k in range(8)}, "")]
    assert len(most) == 8
    assert max(most) <= 4  # two lists a video: one that is read, one that is handed out
