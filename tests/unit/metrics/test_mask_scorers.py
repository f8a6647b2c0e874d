"""Masks in folders of PNGs: which frames and objects count, and what becomes of degenerate predictions."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.unit.metrics.pngs import NONE, ONE, H, W, counts, image, save, save_all
from tpo_core.errors import TpoError
from tpo_core.metrics import mask_files
from tpo_core.metrics.registry import score


def run_lengths(mask):
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.fixture
def mevis(tmp_path):
    """Video v of three frames whose names are not their places; expression 0 is of two annotations, 1 of none."""
    truth = tmp_path / "valid_u"
    truth.mkdir()
    expressions = {"0": {"exp": "both", "anno_id": [5, 6]}, "1": {"exp": "nobody", "anno_id": [7]}}
    video = {"frames": ["00000", "00005", "00010"], "expressions": expressions}
    (truth / "meta_expressions.json").write_text(json.dumps({"videos": {"v": video}}))
    left, right = run_lengths(image((1, 2, 2))), run_lengths(image((1, 12, 20)))
    masks_of = {"5": [left, left, None], "6": [right, None, None], "7": [None, None, None]}
    (truth / "mask_dict.json").write_text(json.dumps(masks_of))
    both, black = image((255, 2, 2), (255, 12, 20)), NONE
    save_all(tmp_path / "mine" / "v" / "0", [both, image((9, 2, 2)), black], step=5)
    save_all(tmp_path / "mine" / "v" / "1", [black] * 3, step=5)

    def run(**options):
        return score("mevis", truth, tmp_path / "mine", **options)

    return run


def test_mevis_takes_unions_and_places(mevis):
    report = mevis()
    assert report.result == {"J": 1.0, "F": 1.0, "J&F": 1.0}
    assert report.per_item.keys() == {"v_0", "v_1"}


def test_whatever_is_not_black_is_the_mask(mevis, tmp_path):
    """The palette is looked up: index 2 is black here, index 0 is not."""
    picture = Image.fromarray(image((2, 0, 0), size=(H, W)), "P")
    picture.putpalette([40, 40, 40, 10, 10, 10, 0, 0, 0])
    picture.save(tmp_path / "mine" / "v" / "1" / "00005.png")
    assert mevis().per_item["v_1"]["J"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("frame", ["00000", "00005"])
def test_a_missing_frame_of_mevis_is_a_miss_even_of_nothing(mevis, tmp_path, frame):
    (tmp_path / "mine" / "v" / "1" / f"{frame}.png").unlink()
    report = mevis()
    assert counts(report) == {"missing": 1}
    assert report.per_item["v_1"] == pytest.approx({"J": 2 / 3, "F": 2 / 3})
    strict = mevis(strict_official=True)
    assert (strict.n, strict.N) == (1, 2)
    assert strict.result["J"] == 1.0


def test_a_frame_of_another_size_or_kind_is_malformed(mevis, tmp_path):
    save(tmp_path / "mine" / "v" / "0" / "00005.png", np.zeros((H, W + 2), np.uint8))
    (tmp_path / "mine" / "v" / "0" / "00010.png").write_bytes(b"no picture")
    report = mevis()
    assert counts(report) == {"malformed": 2}
    assert report.per_item["v_0"]["J"] == pytest.approx(1 / 3)
    assert mevis(strict_official=True).per_item.keys() == {"v_1"}


def test_missing_folders_of_mevis(mevis, tmp_path):
    (tmp_path / "mine" / "w").mkdir()
    (tmp_path / "mine" / "v" / "1").rename(tmp_path / "aside")
    assert counts(mevis()) == {"missing": 1, "unknown": 1}
    assert mevis().result["J"] == 0.5
    assert mevis(strict_official=True).result["J"] == 1.0
    (tmp_path / "mine" / "v").rename(tmp_path / "mine" / "x")
    assert mevis(strict_official=True).result["J"] == 0.0
    assert mevis(strict_official=True).n == 2


def test_truths_of_mevis_that_cannot_be_scored(mevis, tmp_path):
    path = tmp_path / "valid_u" / "mask_dict.json"
    truth = json.loads(path.read_text())
    truth["7"] = [None]
    path.write_text(json.dumps(truth))
    report = mevis()
    assert counts(report) == {"bad_truth": 1}
    assert (report.n, report.N) == (1, 2)
    path.write_text(json.dumps(truth | {"5": [{"size": [H, W]}] * 3}))
    with pytest.raises(TpoError, match="v_0 00000: not the run lengths of COCO"):
        mevis()


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"frames": [], "expressions": []}, "an object of expressions"),
        ({"frames": 3, "expressions": {}}, "a list of frames"),
        ({"expressions": {}}, "has no 'frames'"),
        ({"frames": ["00000"], "expressions": {"0": 7}}, "is not an object"),
        ({"frames": ["00000"], "expressions": {"0": {"anno_id": 7}}}, "a list of anno_id"),
        ({"frames": ["00000", 5], "expressions": {}}, "v must name its frames by text"),
        ({"frames": [None], "expressions": {}}, "v must name its frames by text"),
    ],
)
def test_expressions_of_another_form(mevis, tmp_path, video, message):
    (tmp_path / "valid_u" / "meta_expressions.json").write_text(json.dumps({"videos": {"v": video}}))
    with pytest.raises(TpoError, match=message):
        mevis()


@pytest.mark.parametrize("videos", [[], None, "v"])
def test_videos_that_are_no_object(mevis, tmp_path, videos):
    (tmp_path / "valid_u" / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    with pytest.raises(TpoError, match=r"meta_expressions\.json: videos is not an object$"):
        mevis()


@pytest.fixture
def ref_youtube_vos(tmp_path):
    truth = tmp_path / "truth"
    expressions = {"0": {"exp": "a", "obj_id": "1"}, "1": {"exp": "b", "obj_id": "2"}, "2": {"exp": "c"}}
    frames = ["00010", "00000", "00005"]
    meta = {"videos": {"v": {"frames": frames, "expressions": expressions}}}
    folder = truth / "meta_expressions" / "valid"
    folder.mkdir(parents=True)
    (folder / "meta_expressions.json").write_text(json.dumps(meta))
    save_all(truth / "valid" / "Annotations" / "v", [image((1, 2, 2), (2, 12, 20)), image((1, 2, 2))], step=5)
    save_all(tmp_path / "mine" / "v" / "0", [image((255, 2, 2))] * 2, step=5)
    save_all(tmp_path / "mine" / "v" / "1", [image((255, 12, 20))] * 2, step=5)
    return lambda **options: score("ref_youtube_vos", truth, tmp_path / "mine", **options)


def test_ref_youtube_vos_scores_annotated_frames(ref_youtube_vos):
    report = ref_youtube_vos()
    assert report.per_item["v_0"] == {"J": 1.0, "F": 1.0}
    assert report.per_item["v_1"] == {"J": 0.5, "F": 0.5}
    assert counts(report) == {"bad_truth": 1}
    assert (report.n, report.N) == (2, 3)
    assert report.implementation == "mevis_rule"


def test_frames_of_ref_youtube_vos_of_several_types(ref_youtube_vos, tmp_path):
    path = tmp_path / "truth" / "meta_expressions" / "valid" / "meta_expressions.json"
    meta = json.loads(path.read_text())
    meta["videos"]["v"]["frames"] = ["00000", 5]
    path.write_text(json.dumps(meta))
    with pytest.raises(TpoError, match="v must name its frames by text"):
        ref_youtube_vos()


def test_ref_youtube_vos_without_its_files(ref_youtube_vos):
    with pytest.raises(TpoError, match="there is neither"):
        ref_youtube_vos(split="train")


@pytest.fixture
def sav(tmp_path):
    def run(truth, prediction, layer="000", **options):
        save_all(tmp_path / "gt" / "v" / layer, truth, step=4)
        save_all(tmp_path / "mine" / "v" / layer, prediction, step=4)
        return score("sav", tmp_path / "gt", tmp_path / "mine", **options)

    return run


def test_sav_leaves_out_the_first_and_the_last_annotated_frame(sav):
    report = sav([ONE] * 4, [NONE, ONE, NONE, NONE])
    assert report.result == {"J&F": 50.0, "J": 50.0, "F": 50.0}
    every = sav([ONE] * 4, [NONE, ONE, NONE, NONE], do_not_skip_first_and_last_frame=True)
    assert every.result["J"] == 25.0


def test_sav_counts_an_object_from_where_it_is_first_seen(sav):
    assert sav([NONE, NONE, NONE, ONE, ONE, ONE], [NONE, NONE, NONE, ONE, NONE, ONE]).result["J"] == 50.0
    early = sav([NONE, NONE, NONE, ONE, ONE, ONE], [NONE, NONE, ONE, ONE, NONE, ONE])
    assert early.result["J"] == pytest.approx(100 / 3)


def test_frames_that_are_not_annotated_are_ignored(sav, tmp_path):
    save(tmp_path / "mine" / "v" / "000" / "00005.png", ONE)
    assert sav([ONE] * 3, [ONE] * 3).rejected == {}


def test_an_object_that_the_truth_never_shows_is_left_out_of_sav(sav):
    sav([ONE] * 3, [ONE] * 3)
    report = sav([ONE, NONE, NONE], [ONE] * 3, layer="001")
    assert counts(report) == {"bad_truth": 1}
    assert (report.n, report.N, report.result["J"]) == (1, 2, 100.0)
    with pytest.raises(TpoError, match="never in a scored frame"):
        sav([ONE, NONE, NONE], [ONE] * 3, layer="001", strict_official=True)


@pytest.mark.parametrize(
    "prediction", [image((1, 2, 2), (2, 12, 20)), np.zeros((H, W + 1), np.uint8), np.zeros((H, W, 3), np.uint8)]
)
def test_wrong_predictions_of_sav(sav, prediction):
    report = sav([ONE] * 4, [ONE, prediction, ONE, ONE])
    assert counts(report) == {"malformed": 1}
    assert report.result["J"] == 50.0
    with pytest.raises(TpoError, match="evaluator of SA-V stops"):
        sav([ONE] * 4, [ONE, prediction, ONE, ONE], strict_official=True)


def test_missing_videos_and_frames_of_sav(sav, tmp_path):
    sav([ONE] * 4, [ONE] * 4)
    (tmp_path / "mine" / "v" / "000" / "00004.png").unlink()
    save_all(tmp_path / "gt" / "w" / "000", [ONE] * 3)
    save_all(tmp_path / "mine" / "x" / "000", [ONE] * 3)
    report = score("sav", tmp_path / "gt", tmp_path / "mine")
    assert counts(report) == {"missing": 3, "unknown": 1}
    assert {key: item["J"] for key, item in report.per_item.items()} == {"v/000": 50.0, "w/000": 0.0}
    with pytest.raises(TpoError, match="missing video"):
        score("sav", tmp_path / "gt", tmp_path / "mine", strict_official=True)


def test_sav_in_the_layout_of_davis(tmp_path):
    """Predicted numbers that the truth has not are ignored."""
    save_all(tmp_path / "gt" / "v", [image((1, 2, 2), (2, 12, 20))] * 3)
    save_all(tmp_path / "mine" / "v", [image((1, 2, 2), (3, 12, 20))] * 3)
    report = score("sav", tmp_path / "gt", tmp_path / "mine")
    assert {key: item["J"] for key, item in report.per_item.items()} == {"v/001": 100.0, "v/002": 0.0}
    assert report.rejected == {}


def test_masks_that_are_no_masks(tmp_path):
    with pytest.raises(TpoError, match="there is no such file"):
        mask_files.indices(tmp_path / "no.png")
    save(tmp_path / "rgb.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(TpoError, match="has colours"):
        mask_files.indices(tmp_path / "rgb.png")


@pytest.mark.parametrize("metric", ["davis", "mevis", "ref_youtube_vos", "sav"])
def test_folders_without_what_is_asked_for_are_told(tmp_path, metric):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TpoError):
        score(metric, tmp_path / "empty", tmp_path / "empty")


def test_of_sixteen_bits_the_upper_eight_count(mevis, tmp_path):
    """As OpenCV reads a grey PNG: 100 of 65535 is black."""
    for value, j in ((100, 1.0), (0xFF00, 2 / 3)):
        picture = np.full((H, W), value, np.uint16)
        Image.fromarray(picture).save(tmp_path / "mine" / "v" / "1" / "00005.png")
        assert mevis().per_item["v_1"]["J"] == pytest.approx(j)
