import json

import pytest

from tests.unit.data.readers.pngs import left_edges, save, squares
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED, answer_targets, prompt_boxes
from tpo_core.errors import TpoError

FRAMES = ["00000", "00005", "00010"]


def thing(category="cat", frames=FRAMES):
    return {"category": category, "frames": frames}


def write(root, objects_of_video, split="train"):
    (root / split).mkdir(exist_ok=True)
    content = {name: {"objects": objects} for name, objects in objects_of_video.items()}
    (root / split / "meta.json").write_text(json.dumps({"videos": content}))


def masks(root, name, split="train", frames=FRAMES):
    """Object 1 is on all frames, object 2 on all but the first."""
    for k, frame in enumerate(frames):
        placed = [(1, k)] if k == 0 else [(1, k), (2, 10)]
        save(root / split / f"Annotations/{name}/{frame}.png", squares(*placed))


def read(root, split="train", **options):
    return list(READERS["youtube_vos"].read(str(root), split, options))


def test_a_late_object_is_prompted_where_its_mask_begins_not_where_the_file_says(tmp_path):
    write(tmp_path, {"a": {"1": thing("dog"), "2": thing("cat", FRAMES[:2])}})
    masks(tmp_path, "a")
    dog, cat = read(tmp_path)
    assert (dog.sample_id, dog.task) == ("youtube_vos/train/a-1", "track")
    assert left_edges(answer_targets(dog)[0].track) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert left_edges(answer_targets(cat)[0].track) == [(0, None), (1, 10.0), (2, 10.0)]
    assert (prompt_boxes(cat)[0].frame, prompt_boxes(cat)[0].box) == (1, (10.0, 2.0, 13.0, 5.0))
    assert (dog.provenance.flags, cat.provenance.flags) == ((), ("late_first_box",))
    assert [target.label for target in cat.targets] == ["cat", "cat"]
    assert answer_targets(cat)[0].track[1].rle is not None
    media = cat.media[0]
    assert (media.uri, media.fps, media.frame_stride) == ("train/JPEGImages/a", 30.0, 5)
    assert media.frame_names == ("00000.jpg", "00005.jpg", "00010.jpg")


def test_held_back_masks_give_a_prompt_without_a_track(tmp_path):
    write(tmp_path, {"a": {"1": thing(), "2": thing(frames=FRAMES[1:])}}, "valid")
    save(tmp_path / "valid/Annotations/a/00000.png", squares((1, 3)))
    save(tmp_path / "valid/Annotations/a/00005.png", squares((2, 8)))
    one, two = read(tmp_path, "valid")
    assert (answer_targets(one), answer_targets(two)) == ((), ())
    assert [prompt_boxes(each)[0].frame for each in (one, two)] == [0, 1]
    assert [prompt_boxes(each)[0].box[0] for each in (one, two)] == [3.0, 8.0]
    assert UNLABELLED in one.provenance.flags
    assert one.media[0].n_frames == 3


def test_the_planted_bad_records_are_rejected_and_no_other(tmp_path):
    planted = {
        "good": ({"1": thing()}, [None]),
        "mixed": ({"1": thing(), "x": thing(), "9": thing(), "2": {"category": "cat"}}, ["bad_record"]),
        "lost": ({"1": thing(), "2": thing(frames=FRAMES[:1])}, ["no_labels", None]),
        "some": ({"1": thing(), "x": thing(), "9": thing()}, [None, "bad_record", "track_never_visible"]),
        "list": ([], ["bad_record"]),
    }
    write(tmp_path, {name: objects for name, (objects, _) in planted.items()})
    for name in planted:
        masks(tmp_path, name)
    (tmp_path / "train/Annotations/lost/00010.png").unlink()
    items = read(tmp_path)
    found = [item.reason if isinstance(item, Reject) else None for item in items]
    assert found == [why for _, reasons in planted.values() for why in reasons]
    assert {item.uri for item in items if isinstance(item, Reject)} == {f"train/meta.json:{k}" for k in (2, 3, 4, 5)}


def test_videos_come_before_the_file_is_read_to_its_end(tmp_path):
    write(tmp_path, {"a": {"1": thing()}})
    masks(tmp_path, "a")
    path = tmp_path / "train/meta.json"
    path.write_text(path.read_text()[:-2] + "".join(f', "v{k}": 0' for k in range(20_000)) + ", broken")
    items = READERS["youtube_vos"].read(str(tmp_path), "train", {})
    assert next(items).provenance.native_id == "a-1"
    with pytest.raises(TpoError, match="is not JSON"):
        list(items)
