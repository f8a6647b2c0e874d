import json

import numpy as np
import pytest
from PIL import Image

from tests.unit.data.readers.pngs import save, squares
from tpo_core.data import rle
from tpo_core.data.predictions import masks
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError


def square(x, size=(12, 20)):
    return rle.encode(squares((1, x), size=size))


def mode_and_values(path):
    with Image.open(path) as image:
        return image.mode, np.unique(np.asarray(image)).tolist()


@pytest.fixture
def expression(tmp_path):
    """Of Ref-YouTube-VOS: expression 0 of video a-b, three frames."""
    frames = ["00000", "00005", "00010"]
    content = {"videos": {"a-b": {"frames": frames, "expressions": {"0": {"exp": "a cat", "obj_id": "1"}}}}}
    path = tmp_path / "meta_expressions/train/meta_expressions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    for frame in frames:
        save(tmp_path / f"train/Annotations/a-b/{frame}.png", squares((1, 1)))
    (sample,) = READERS["ref_youtube_vos"].read(str(tmp_path), "train", {})
    return sample


@pytest.fixture
def davis(tmp_path):
    """Objects 1, 2 and 12 of sequence dog, two frames."""
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("dog\n")
    for k in range(2):
        save(tmp_path / f"Annotations/480p/dog/{k:05d}.png", squares((1, 1), (2, 5), (12, 9)))
    return list(READERS["davis17"].read(str(tmp_path), "val", {}))


def test_an_expression_has_a_folder_with_a_file_a_frame(expression, tmp_path):
    predicted = {0: square(4), 1: None, 2: square(9)}
    masks.write_expression(f"file://{tmp_path}/out", expression, predicted)
    folder = tmp_path / "out/a-b/0"
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00005.png", "00010.png"]
    assert mode_and_values(folder / "00000.png") == ("L", [0, 255])
    assert masks.read_expression(str(tmp_path / "out"), expression, range(3)) == predicted
    with pytest.raises(FileNotFoundError):
        masks.read_expression(str(tmp_path / "other"), expression, [0])


def test_a_mask_of_another_size_is_refused(expression, tmp_path):
    with pytest.raises(TpoError, match="a mask of 9 x 9 for frames of 12 x 20"):
        masks.write_expression(str(tmp_path / "out"), expression, {0: square(1, (9, 9))})


def test_objects_of_a_sequence_share_palette_files_by_their_index(davis, tmp_path):
    one, two, twelve = davis
    predicted = [
        (one, {0: square(0), 1: None}),
        (two, {0: square(6), 1: square(7)}),
        (twelve, {0: square(12), 1: None}),
    ]
    masks.write_palette(str(tmp_path / "out"), predicted)
    assert mode_and_values(tmp_path / "out/dog/00000.png") == ("P", [0, 1, 2, 12])
    for sample, expected in predicted:
        assert masks.read_palette(str(tmp_path / "out"), sample, range(2)) == expected


def test_the_palette_is_that_of_davis(davis, tmp_path):
    masks.write_palette(str(tmp_path / "out"), [(davis[0], {0: square(0)})])
    with Image.open(tmp_path / "out/dog/00000.png") as image:
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert image.getpalette()[3 * 255 :] == [224, 224, 192]
        assert image.convert("RGB").getpixel((0, 2)) == (128, 0, 0)


def test_where_objects_overlap_the_first_one_keeps_the_pixel(davis, tmp_path):
    one, two, _ = davis
    masks.write_palette(str(tmp_path / "out"), [(two, {0: square(2)}), (one, {0: square(0)})])
    found = {sample.sample_id: masks.read_palette(str(tmp_path / "out"), sample, [0])[0] for sample in (one, two)}
    assert found[two.sample_id] == square(2)
    assert rle.bbox(found[one.sample_id]) == (0.0, 2.0, 2.0, 5.0)


def test_an_object_of_sa_v_has_its_own_files_so_that_objects_may_overlap(tmp_path):
    (tmp_path / "sav_val").mkdir()
    (tmp_path / "sav_val/sav_val.txt").write_text("sav_1\n")
    for index in ("000", "001"):
        for k in (0, 4):
            save(tmp_path / f"sav_val/Annotations_6fps/sav_1/{index}/{k:05d}.png", squares((1, 2)))
    samples = list(READERS["sa_v"].read(str(tmp_path), "val", {}))
    predicted = {0: square(4), 4: None}
    for sample in samples:
        masks.write_sa_v(str(tmp_path / "out"), sample, predicted)
    assert (tmp_path / "out/sav_1/001/00004.png").is_file()
    assert [masks.read_sa_v(str(tmp_path / "out"), sample, [0, 4]) for sample in samples] == [predicted] * 2


def test_the_written_truth_is_what_the_reader_reads(davis, tmp_path):
    """A round trip through the reader: canonical masks, written as palette PNGs, read as labels."""
    truth = [(sample, {entry.frame: entry.rle for entry in sample.targets[0].track}) for sample in davis]
    masks.write_palette(str(tmp_path / "again/Annotations/480p"), truth)
    (tmp_path / "again/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "again/ImageSets/2017/val.txt").write_text("dog\n")
    assert list(READERS["davis17"].read(str(tmp_path / "again"), "val", {})) == davis
