import json
from pathlib import Path

import pytest

from tests.unit.data.readers.pngs import left_edges, save, squares
from tpo_core.data import rle
from tpo_core.data.readers import READERS, Reject, ref_youtube_vos
from tpo_core.data.sample import UNLABELLED, validate
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
FRAMES = ["00010", "00000", "00005"]  # the file need not be in order


def write(root, videos, split="train"):
    path = root / "meta_expressions" / split / "meta_expressions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(videos if isinstance(videos, str) else json.dumps({"videos": videos}))


def read(root, split="train", **options):
    return list(READERS["ref_youtube_vos"].read(str(root), split, options))


def video(*expressions, frames=FRAMES):
    return {"frames": frames, "expressions": {str(k): each for k, each in enumerate(expressions)}}


def masks(root, name, frames, mode="P"):
    """Object 1 moves right, object 2 comes on the second frame."""
    for k, frame in enumerate(sorted(frames)):
        placed = [(1, k)] if k == 0 else [(1, k), (2, 10)]
        save(root / f"train/Annotations/{name}/{frame}.png", squares(*placed), mode)


def test_the_facts_of_the_small_layout():
    golden = json.loads((FORMATS / "golden/ref_youtube_vos.json").read_text())
    root = FORMATS / "input/ref_youtube_vos"
    for record, sample in zip(golden["records"], read(root), strict=True):
        (target,) = sample.targets
        assert sample.provenance.native_id == f"{record['video']}-{record['exp_id']}"
        assert (target.label, target.object_id) == (record["expression"], str(record["object_id"]))
        assert sample.media[0].frame_names == tuple(f"{each['frame']}.jpg" for each in record["frames"])
        for expected, entry in zip(record["frames"], target.track, strict=True):
            assert entry.visible is not expected["absent"]
            assert entry.box == (None if expected["absent"] else tuple(expected["box_xyxy"]))
            assert entry.rle is None or rle.decode(entry.rle).sum() == expected["area"]
    valid = read(root, "valid")
    assert [sample.provenance.native_id.split("-")[0] for sample in valid] == golden["valid_videos"]
    assert len(read(root, "valid", valid="listed")) == 3


def test_the_index_is_the_object_and_frames_are_in_order(tmp_path):
    write(tmp_path, {"a": video({"exp": " The  cat ", "obj_id": "2"}, {"exp": "a dog", "obj_id": "1"})})
    masks(tmp_path, "a", FRAMES)
    cat, dog = read(tmp_path)
    assert (cat.sample_id, cat.task, cat.targets[0].label) == ("ref_youtube_vos/train/a-0", "mask", "The  cat")
    assert left_edges(cat.targets[0].track) == [(0, None), (1, 10.0), (2, 10.0)]
    assert left_edges(dog.targets[0].track) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    media = cat.media[0]
    assert (media.uri, media.kind, media.n_frames) == ("train/JPEGImages/a", "frames", 3)
    assert (media.width, media.height, media.fps, media.frame_stride) == (20, 12, 30.0, 5)
    assert media.frame_names == ("00000.jpg", "00005.jpg", "00010.jpg")
    assert validate(cat) == []


def test_expressions_without_an_object_are_readable_but_no_labels(tmp_path):
    write(tmp_path, {"a": video({"exp": "a cat"})}, "test")
    (sample,) = read(tmp_path, "test")
    assert (sample.targets, sample.provenance.flags) == ((), (UNLABELLED,))


def test_valid_needs_the_list_of_test_unless_all_is_asked(tmp_path):
    write(tmp_path, {"a": video({"exp": "a cat"})}, "valid")
    with pytest.raises(TpoError, match=r"test/meta_expressions\.json"):
        read(tmp_path, "valid")
    assert len(read(tmp_path, "valid", valid="listed")) == 1


def test_the_masks_of_a_video_are_read_once(tmp_path, monkeypatch):
    write(tmp_path, {name: video(*[{"exp": "a cat", "obj_id": "1"}] * 3) for name in ("a", "b")})
    reads = []
    original = ref_youtube_vos.read_masks

    def counted(root, folder, frames):
        reads.append(folder)
        return original(root, folder, frames)

    monkeypatch.setattr(ref_youtube_vos, "read_masks", counted)
    masks(tmp_path, "a", FRAMES)
    masks(tmp_path, "b", FRAMES)
    assert len(read(tmp_path)) == 6
    assert reads == ["train/Annotations/a", "train/Annotations/b"]


def test_samples_come_before_the_file_is_read_to_its_end(tmp_path):
    first = json.dumps({"videos": {"a": video({"exp": "a cat", "obj_id": "1"})}})[:-2]
    write(tmp_path, first + "".join(f', "v{k}": 0' for k in range(20_000)) + ", broken")
    masks(tmp_path, "a", FRAMES)
    items = READERS["ref_youtube_vos"].read(str(tmp_path), "train", {})
    assert next(items).provenance.native_id == "a-0"
    with pytest.raises(TpoError, match="is not JSON"):
        list(items)


def test_the_planted_bad_records_are_rejected_and_no_other(tmp_path):
    good = {"exp": "a dog", "obj_id": "1"}
    planted = {
        "good": (video(good), None),
        "shape": ({"frames": FRAMES}, "bad_record"),
        "list": ([], "bad_record"),
        "text": (video({"obj_id": "1"}), "bad_record"),
        "number": (video({"exp": "a dog", "obj_id": "one"}), "bad_record"),
        "nobody": (video({"exp": "a dog", "obj_id": "7"}), "track_never_visible"),
        "background": (video({"exp": "a dog", "obj_id": "0"}), "track_never_visible"),
        "missing": (video(good), "no_labels"),
        "colours": (video(good), "bad_record"),
        "damaged": (video(good), "bad_record"),
        "sizes": (video(good), "bad_record"),
        "good too": (video(good), None),
    }
    write(tmp_path, {name: content for name, (content, _) in planted.items()})
    for name in planted:
        masks(tmp_path, name, FRAMES, "RGB" if name == "colours" else "P")
    (tmp_path / "train/Annotations/missing/00005.png").unlink()
    (tmp_path / "train/Annotations/damaged/00005.png").write_bytes(b"\x89PNG\r\n")
    save(tmp_path / "train/Annotations/sizes/00005.png", squares((1, 1), size=(9, 9)))
    items = read(tmp_path)
    assert [item.reason if isinstance(item, Reject) else None for item in items] == [why for _, why in planted.values()]
    for row, (name, item) in enumerate(zip(planted, items, strict=True)):
        if isinstance(item, Reject):
            assert item.uri == f"meta_expressions/train/meta_expressions.json:{row + 1}"
            assert name in item.detail
