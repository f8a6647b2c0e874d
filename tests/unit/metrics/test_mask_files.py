"""Run lengths of COCO: what fits is decoded, what does not never reaches pycocotools, which writes beyond the mask."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tpo_core.errors import TpoError
from tpo_core.metrics import files, mask_files


def encoded(mask_HW):
    return coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_masks_of_any_share_are_decoded(share):
    mask_HW = np.random.default_rng(3).random((37, 53)) < share
    found = encoded(mask_HW)
    assert np.array_equal(mask_files.decoded(found, "here"), mask_HW)
    as_text = {"size": found["size"], "counts": found["counts"].decode()}
    assert np.array_equal(mask_files.decoded(as_text, "here"), mask_HW)


@pytest.mark.parametrize(
    "size", [[1, 1], [37, 54], [-37, -53], [10**9, 10**9], [10**400, 1], [37.0, 53], [37], None, "ab", {}]
)
def test_a_size_that_the_runs_do_not_fill_is_one_line(size):
    counts = encoded(np.eye(37, 53))["counts"]
    with pytest.raises(TpoError, match=r"^here: not the run lengths of COCO"):
        mask_files.decoded({"size": size, "counts": counts}, "here")


@pytest.mark.parametrize("counts", ["", "P", "0" * 50 + "P", 7, None, [3, 4]])
def test_damaged_runs_are_one_line(counts):
    with pytest.raises(TpoError, match=r"^here: not the run lengths of COCO"):
        mask_files.decoded({"size": [2, 3], "counts": counts}, "here")


def test_a_name_that_no_disk_takes_is_one_line(tmp_path):
    with pytest.raises(TpoError, match=r"cannot be read"):
        files.text(tmp_path / ("a" * 300))
