import json
import pickle
from pathlib import Path

import pytest

from tpo_core.data import rle
from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


def ref(number, split, sents, ann_id=1):
    return {
        "ref_id": number,
        "ann_id": ann_id,
        "image_id": 5,
        "file_name": f"COCO_train2014_000000000005_{number}.jpg",
        "split": split,
        "sentences": [{"sent_id": 10 * number + i, "sent": sent} for i, sent in enumerate(sents)],
    }


def annotation(ann_id, bbox, segmentation=SQUARE):
    return {"id": ann_id, "image_id": 5, "bbox": bbox, "segmentation": segmentation}


def write(root, refs, annotations, name="refs(unc).p"):
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol=0))
    image = {"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "width": 100, "height": 80}
    (root / "instances.json").write_text(json.dumps({"images": [image], "annotations": annotations}))


def read(root, split="train", **options):
    return list(READERS["refcoco"].read(str(root), split, options))


def test_one_sample_a_sentence_with_box_and_mask(tmp_path):
    refs = [ref(1, "train", ["the cup", "left cup "]), ref(2, "val", ["plate"])]
    write(tmp_path / "refcoco", refs, [annotation(1, [10.5, 10.0, 20.0, 20.25])])
    samples = read(tmp_path)
    assert [sample.sample_id for sample in samples] == ["refcoco/train/10", "refcoco/train/11"]
    assert [sample.targets[0].label for sample in samples] == ["the cup", "left cup"]
    assert samples[0].targets[0].box == (10.5, 10.0, 30.5, 30.25)
    assert rle.decode(samples[0].targets[0].rle).sum() == 400
    media = samples[0].media[0]
    assert media.uri == "images/train2014/COCO_train2014_000000000005.jpg"
    assert (media.kind, media.width, media.height) == ("image", 100, 80)
    assert samples[0].turns[1].text == "Answer: <box_begin><boxes> ."


def test_the_root_may_be_the_dataset_folder_itself(tmp_path):
    write(tmp_path / "cocog", [ref(1, "val", ["x"])], [annotation(1, [1, 1, 5, 5])], name="refs(umd).p")
    options = {"dataset": "refcocog", "split_by": "umd", "image": "{name}", "masks": "no"}
    (sample,) = read(tmp_path / "cocog", "val", **options)
    assert (sample.dataset, sample.targets[0].rle) == ("refcocog", None)
    assert sample.media[0].uri == "COCO_train2014_000000000005.jpg"


def test_boxes_may_leave_the_image_but_not_wholly(tmp_path):
    refs = [ref(1, "train", ["a"], 1), ref(2, "train", ["b"], 2), ref(3, "train", ["c"], 3), ref(4, "train", ["d"], 9)]
    boxes = [annotation(1, [-5, -5, 20, 20]), annotation(2, [100, 0, 20, 20]), annotation(3, [5, 5, 0, 9])]
    write(tmp_path / "refcoco", refs, boxes)
    kept, *rejects = read(tmp_path)
    assert kept.targets[0].box == (-5.0, -5.0, 15.0, 15.0)
    assert [reject.reason for reject in rejects] == ["box_outside_image", "box_empty", "bad_record"]
    assert all(isinstance(reject, Reject) for reject in rejects)


@pytest.mark.parametrize(
    "broken",
    [
        {key: value for key, value in ref(1, "train", ["a"]).items() if key != "sentences"},
        {**ref(1, "train", ["a"]), "sentences": [{"sent_id": 10}]},
        {**ref(1, "train", ["a"]), "sentences": None},
        {"split": "train"},
        {"sentences": []},
        "not a ref",
        ref(1, "train", ["a"], ann_id=2),
        ref(1, "train", ["a"], ann_id=3),
        ref(1, "train", ["a"], ann_id=4),
    ],
)
def test_a_record_of_another_shape_is_rejected_and_the_others_kept(tmp_path, broken):
    wide = annotation(3, [1, 1, 5, 5], {"size": [80, 100], "counts": [8 * 10**30]})
    endless = annotation(4, [1, 1, 5, 5], [[0, 0, float("inf"), 0, 9, 9]])
    boxless = {"id": 2, "image_id": 5}
    write(tmp_path / "refcoco", [broken, ref(5, "train", ["b"])], [annotation(1, [1, 1, 5, 5]), boxless, wide, endless])
    reject, kept = read(tmp_path)
    assert (reject.uri, reject.reason) == ("refcoco/refs(unc).p:1", "bad_record")
    assert (kept.targets[0].label, kept.provenance.row) == ("b", 1)


def test_python_2_strings_are_read(tmp_path):
    python_2 = b"(lp0\n(dp1\nS'split'\np2\nS'train'\np3\nsS'ann_id'\np4\nI1\nsS'ref_id'\nI3\nsS'sentences'\n"
    python_2 += b"(lp5\n(dp6\nS'sent_id'\nI30\nsS'sent'\nS'caf\\xe9'\nsasa."
    write(tmp_path / "refcoco", python_2, [annotation(1, [1, 1, 5, 5])])
    assert read(tmp_path)[0].targets[0].label == "caf\u00e9"


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize("content", [pickle.dumps([Evil()]), b"not a pickle", pickle.dumps({"a": 1}), b""])
def test_a_pickle_that_is_more_than_annotations_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "refcoco", content, [])
    with pytest.raises(TpoError) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "owned").exists()


def test_an_unknown_split_names_the_known_ones(tmp_path):
    write(tmp_path / "refcoco", [ref(1, "testA", ["x"]), ref(2, "val", ["x"])], [])
    with pytest.raises(TpoError, match="no split 'test'; it has testA, val"):
        read(tmp_path, "test")


def test_the_golden_layout():
    records = json.loads((FORMATS / "golden/refcoco.json").read_text())["records"]
    samples = {s.provenance.native_id: s for split in ("testA", "val") for s in read(FORMATS / "input", split)}
    assert set(samples) == {str(record["sent_id"]) for record in records}
    for record in records:
        sample = samples[str(record["sent_id"])]
        assert (sample.split, sample.targets[0].label) == (record["split"], record["expression"])
        assert sample.media[0].uri.endswith("/" + record["image"])
        assert sample.targets[0].box == pytest.approx(record["box_xyxy"], abs=1e-9)
        assert json.loads(sample.provenance.raw)["ref_id"] == record["ref_id"]


def test_images_of_a_list_are_not_read(tmp_path):
    write(tmp_path / "refcoco", [ref(1, "train", ["a"])], [annotation(1, [1, 1, 5, 5])])
    (tmp_path / "held_out.txt").write_text("7\n5\n\n")
    assert read(tmp_path, exclude="held_out.txt") == []
    (tmp_path / "held_out.txt").write_text("7\n")
    assert len(read(tmp_path, exclude="held_out.txt")) == 1


@pytest.mark.parametrize(
    ("text", "message"), [("5\ncat.jpg\n", "line 2 of held_out.txt is no COCO"), (None, "label file")]
)
def test_a_list_of_images_that_is_none_is_a_user_error(tmp_path, text, message):
    write(tmp_path / "refcoco", [ref(1, "train", ["a"])], [annotation(1, [1, 1, 5, 5])])
    if text is not None:
        (tmp_path / "held_out.txt").write_text(text)
    with pytest.raises(TpoError, match=message):
        read(tmp_path, exclude="held_out.txt")


def test_an_empty_expression_is_rejected(tmp_path):
    write(tmp_path / "refcoco", [ref(1, "train", [" "]), ref(2, "train", ["a"])], [annotation(1, [1, 1, 5, 5])])
    reject, kept = read(tmp_path)
    assert (reject.reason, kept.targets[0].label) == ("bad_record", "a")
