"""RefCOCO in the form of MDETR: every sentence is an image entry with one annotation."""

import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError


def image(number, caption="the lady", **changes):
    row = {
        "id": number,
        "file_name": "COCO_train2014_000000581857.jpg",
        "original_id": 581857,
        "width": 640,
        "height": 427,
        "caption": caption,
        "dataset_name": "refcoco",
    }
    return {**row, **changes}


def boxed(image_id, bbox=(103.93, 299.99, 134.22, 127.01)):
    return {"id": 1000 + image_id, "image_id": image_id, "bbox": list(bbox), "tokens_positive": [[0, 8]]}


def read(root, images, annotations, split="testA", **options):
    text = json.dumps({"info": "", "images": images, "annotations": annotations, "categories": []})
    (root / f"finetune_{options.get('dataset', 'refcoco')}_{split}.json").write_text(text)
    return list(READERS["refcoco_mdetr"].read(str(root), split, options))


def test_one_sample_a_sentence(tmp_path):
    first, second = read(tmp_path, [image(7), image(3, " woman left")], [boxed(3), boxed(7, (0, 10, 50, 60.5))])
    assert [first.sample_id, second.sample_id] == ["refcoco/testA/mdetr-7", "refcoco/testA/mdetr-3"]
    assert first.targets[0].box == (0.0, 10.0, 50.0, 70.5)
    assert second.targets[0].box == pytest.approx((103.93, 299.99, 238.15, 427.0))
    assert [first.targets[0].label, second.targets[0].label] == ["the lady", "woman left"]
    media = first.media[0]
    assert (media.uri, media.kind) == ("images/train2014/COCO_train2014_000000581857.jpg", "image")
    assert (media.width, media.height) == (640, 427)
    assert second.turns[1].target_refs == (0,)
    raw = json.loads(second.provenance.raw)
    assert (raw["original_id"], raw["bbox_xywh"]) == (581857, [103.93, 299.99, 134.22, 127.01])


def test_the_other_datasets_and_held_out_images(tmp_path):
    (tmp_path / "ids.txt").write_text("581857\n")
    rows = [image(1, dataset_name="refcocog"), image(2, original_id=9)]
    (sample,) = read(tmp_path, rows, [boxed(1), boxed(2)], split="val", dataset="refcocog", exclude="ids.txt")
    assert sample.sample_id == "refcocog/val/mdetr-2"


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    images = [
        image(0),
        image(1),
        image(2),
        image(3, caption="  "),
        {key: value for key, value in image(4).items() if key != "caption"},
        image(5),
        image(6),
        "text",
        image(8),
        image(9),
        image(10),
    ]
    annotations = [
        boxed(0),
        boxed(2),
        boxed(2),
        boxed(3),
        boxed(4),
        boxed(5, (1, 1, 0, 5)),
        boxed(6, (700, 0, 9, 9)),
        {"image_id": 8, "bbox": [1, 2, 3]},
        boxed(9, (1, 1, None, 5)),
        "text",
        {"image_id": [1]},
        boxed(10),
    ]
    items = read(tmp_path, images, annotations)
    assert {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)} == {
        "2": "no_labels",
        "3": "bad_record",
        "4": "bad_record",
        "5": "bad_record",
        "6": "box_empty",
        "7": "box_outside_image",
        "8": "bad_record",
        "9": "bad_record",
        "10": "bad_record",
    }
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 10]


def test_a_cut_off_file_is_a_user_error(tmp_path):
    whole = json.dumps({"annotations": [boxed(1)], "images": [image(1)]})
    (tmp_path / "finetune_refcoco_val.json").write_text(whole[:-30])
    with pytest.raises(TpoError, match="is the download complete"):
        list(READERS["refcoco_mdetr"].read(str(tmp_path), "val", {}))
