"""Run lengths against the numbers of the official COCO tools, and their properties on random masks."""

import json
from pathlib import Path

import numpy as np
import pytest

from tpo_core.data import rle
from tpo_core.data.sample import Rle

GOLDEN = Path(__file__).resolve().parents[2] / "golden/metrics/coco_rle"


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def test_encoding_decoding_and_box_equal_the_official_ones():
    masks = np.load(GOLDEN / "input/masks.npz")
    for case in golden("golden/rle.json"):
        mask_HW = masks[case["mask"]]
        encoded = rle.encode(mask_HW)
        assert encoded == Rle(*case["size"], case["counts_str"].encode())
        if case["counts_list"] is not None:
            assert rle.runs(encoded).tolist() == case["counts_list"]
            assert rle.from_runs(*case["size"], case["counts_list"]) == encoded
        np.testing.assert_array_equal(rle.decode(encoded), mask_HW)
        assert rle.decode(encoded).sum() == case["area"]
        x1, y1, x2, y2 = rle.bbox(encoded) or (0.0, 0.0, 0.0, 0.0)
        assert [x1, y1, x2 - x1, y2 - y1] == case["bbox_xywh"]


def test_union_equals_the_official_merge():
    masks, ops = np.load(GOLDEN / "input/masks.npz"), golden("golden/rle_ops.json")
    parts = [rle.encode(masks[name]) for name in ("m5_blob", "m5_empty", "m5_last_pixel")]
    assert rle.union(parts).counts == ops["merge_union_counts"].encode()


def test_polygons_are_filled_as_the_official_tools_do():
    for case, expected in zip(golden("input/polygons.json"), golden("golden/polygons.json"), strict=True):
        h, w = case["h"], case["w"]
        each = [rle.from_polygons([polygon], h, w).counts.decode() for polygon in case["polygons"]]
        assert each == expected["per_polygon_counts"]
        whole = rle.from_coco(case["polygons"], h, w)
        assert (whole.counts.decode(), rle.decode(whole).sum()) == (expected["union_counts"], expected["union_area"])


def test_random_masks_survive_the_round_trip():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask_HW = rng.random((23, 17)) < density
        encoded = rle.encode(mask_HW)
        np.testing.assert_array_equal(rle.decode(encoded), mask_HW)
        if mask_HW.any():
            rows, columns = np.nonzero(mask_HW)
            assert rle.bbox(encoded) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_an_empty_mask_has_no_box():
    assert rle.bbox(rle.encode(np.zeros((4, 6), np.uint8))) is None


def test_every_form_of_a_coco_segmentation_is_read():
    encoded = rle.encode(np.eye(5, dtype=bool))
    text = encoded.counts.decode()
    for counts in (text, encoded.counts, rle.runs(encoded).tolist()):
        assert rle.from_coco({"size": [5, 5], "counts": counts}, 5, 5) == encoded
    assert rle.to_coco(encoded) == {"size": [5, 5], "counts": text}
    square = rle.from_coco([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 5)
    assert rle.bbox(square) == (1.0, 1.0, 4.0, 3.0)


@pytest.mark.parametrize("counts", [b"9", b"o", b" ", b"zzzz"])
def test_broken_counts_are_refused(counts):
    with pytest.raises(ValueError, match="mask"):
        rle.decode(Rle(2, 2, counts))
