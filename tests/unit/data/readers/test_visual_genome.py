import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError


def region(number, x=421, y=57, width=82, height=139, phrase="the clock is green", **changes):
    values = {"region_id": number, "image_id": 1, "x": x, "y": y, "width": width, "height": height, "phrase": phrase}
    return {**values, **changes}


def image(number, folder="VG_100K_2", coco_id=None):
    url = f"https://cs.stanford.edu/people/rak248/{folder}/{number}.jpg"
    return {"image_id": number, "url": url, "width": 800, "height": 600, "coco_id": coco_id, "flickr_id": None}


def read(root, entries, images, split="train", **options):
    (root / "region_descriptions.json").write_text(json.dumps(entries))
    (root / "image_data.json").write_text(json.dumps(images))
    return list(READERS["visual_genome"].read(str(root), split, options))


def entry(*regions, number=1):
    return {"id": number, "regions": list(regions)}


def test_one_sample_a_region(tmp_path):
    entries = [entry(region(1382), region(1383, phrase=" a man. ")), entry(region(9, image_id=2), number=2)]
    samples = read(tmp_path, entries, [image(1), image(2, "VG_100K", coco_id=77)])
    assert [sample.sample_id for sample in samples] == [f"visual_genome/train/{n}" for n in (1382, 1383, 9)]
    assert [sample.provenance.row for sample in samples] == [0, 1, 2]
    first = samples[0]
    assert (first.task, first.targets[0].label) == ("box", "the clock is green")
    assert first.targets[0].box == (421.0, 57.0, 503.0, 196.0)
    assert [sample.media[0].uri for sample in samples[1:]] == ["VG_100K_2/1.jpg", "VG_100K/2.jpg"]
    assert (first.media[0].width, first.media[0].height) == (800, 600)
    assert json.loads(samples[2].provenance.raw)["coco_id"] == 77


def test_a_box_that_leaves_the_image_is_clipped_and_its_region_kept(tmp_path):
    regions = [region(1, x=-5, y=-1, width=50, height=40), region(2, x=790, y=0, width=20, height=600), region(3)]
    left, right, inside = read(tmp_path, [entry(*regions)], [image(1)])
    assert (left.targets[0].box, right.targets[0].box) == ((0, 0, 45, 39), (790, 0, 800, 600))
    assert left.provenance.flags == right.provenance.flags == ("box_clipped",)
    assert json.loads(left.provenance.raw)["region_xywh"] == [-5, -1, 50, 40]
    assert inside.provenance.flags == ()


def test_the_origin_is_an_option(tmp_path):
    (sample,) = read(tmp_path, [entry(region(1, x=1, y=1, width=10, height=10))], [image(1)], origin="1")
    assert (sample.targets[0].box, sample.provenance.origin) == ((0.0, 0.0, 10.0, 10.0), 1)


def test_held_out_images_are_not_read(tmp_path):
    entries = [entry(region(1)), entry(region(2, image_id=2), number=2), entry(region(3, image_id=3), number=3)]
    (tmp_path / "ids.txt").write_text("77\n")
    samples = read(tmp_path, entries, [image(1, coco_id=77), image(2, coco_id=7), image(3)], exclude="ids.txt")
    assert [sample.provenance.native_id for sample in samples] == ["2", "3"]


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    regions = [
        region(1),
        region(2, width=0),
        region(3, height=-4),
        region(4, x=800),
        region(5, phrase="  "),
        region(6, phrase=None),
        region(7, image_id=5),
        region(8, image_id=6),
        region(9, x="left"),
        {key: value for key, value in region(10).items() if key != "y"},
        "text",
    ]
    broken = {**image(6), "url": None}
    items = read(tmp_path, [entry(*regions), {"id": 3}, "text", entry(region(12))], [image(1), broken, "text"])
    assert {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)} == {
        "2": "box_empty",
        "3": "box_empty",
        "4": "box_outside_image",
    } | {str(number): "bad_record" for number in range(5, 14)}
    assert [item.provenance.native_id for item in items if not isinstance(item, Reject)] == ["1", "12"]


def test_regions_are_streamed(tmp_path):
    (tmp_path / "image_data.json").write_text(json.dumps([image(1)]))
    text = "[" + (json.dumps(entry(*map(region, range(50)))) + ",") * 100 + "broken"
    (tmp_path / "region_descriptions.json").write_text(text)
    items = READERS["visual_genome"].read(str(tmp_path), "train", {})
    assert next(items).targets[0].box == (421.0, 57.0, 503.0, 196.0)
    with pytest.raises(TpoError, match=r"region_descriptions\.json is not JSON"):
        list(items)


@pytest.mark.parametrize("name", ["region_descriptions.json", "image_data.json"])
def test_both_files_are_needed(tmp_path, name):
    read(tmp_path, [], [])
    (tmp_path / name).unlink()
    with pytest.raises(TpoError, match=name):
        list(READERS["visual_genome"].read(str(tmp_path), "train", {}))


def test_there_is_one_split(tmp_path):
    with pytest.raises(TpoError, match="no split 'val'; the dataset has one, 'train'"):
        read(tmp_path, [], [], "val")
