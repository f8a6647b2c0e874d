"""A mean of nothing is no number: by default every metric ends in one line where no truth can be scored."""

import json

import numpy as np
import pytest

from tests.unit.metrics.pngs import NONE, ONE, image, save_all
from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score
from tpo_core.metrics.score import main


def davis(root):
    """Two frames, the first and the last, which are left out."""
    save_all(root / "gt" / "bear", [ONE] * 2)
    save_all(root / "mine" / "bear", [ONE] * 2)


def sav(root):
    save_all(root / "gt" / "v" / "000", [NONE] * 4)
    save_all(root / "mine" / "v" / "000", [ONE] * 4)


def mevis(root):
    video = {"frames": ["00000"], "expressions": {"0": {"exp": "a"}}}
    (root / "gt").mkdir()
    (root / "gt" / "meta_expressions.json").write_text(json.dumps({"videos": {"v": video}}))
    (root / "gt" / "mask_dict.json").write_text("{}")
    (root / "mine").mkdir()


def ref_youtube_vos(root):
    mevis(root)
    save_all(root / "gt" / "Annotations" / "v", [image((1, 2, 2))])


def lasot(root):
    """Hidden from the first frame on: the curve is zero, and such sequences leave the mean of the Matlab toolkit."""
    folder = root / "gt" / "cat" / "cat-1"
    folder.mkdir(parents=True)
    for name, line in (("groundtruth", "1,1,9,9"), ("full_occlusion", "1"), ("out_of_view", "0")):
        (folder / f"{name}.txt").write_text(line)
    (root / "mine").mkdir()
    (root / "mine" / "cat-1.txt").write_text("1,1,9,9")


def got10k(root):
    folder = root / "gt" / "A"
    folder.mkdir(parents=True)
    (root / "gt" / "list.txt").write_text("A")
    (folder / "groundtruth.txt").write_text("1,1,9,9\n" * 2)
    (folder / "cover.label").write_text("8\n0\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (100, 80)\n")
    (root / "mine").mkdir()


CASES = [
    (davis, None, "bad_truth (bear: 1 objects in 0 scored frames)"),
    (sav, None, "bad_truth (v/000)"),
    (mevis, None, "bad_truth (v_0 has no anno_id (a split without truth))"),
    (ref_youtube_vos, None, "bad_truth (v_0 has no obj_id (a split without truth))"),
    (lasot, "lasot_matlab", "their mean leaves all out"),
    (got10k, None, "bad_truth (A: never visible after its first frame)"),
]


@pytest.mark.parametrize(("prepare", "implementation", "reason"), CASES)
def test_without_anything_to_score_the_command_ends_in_one_line(tmp_path, capsys, prepare, implementation, reason):
    prepare(tmp_path)
    words = [prepare.__name__, "--ground-truth", str(tmp_path / "gt"), "--predictions", str(tmp_path / "mine")]
    assert main([*words, *(["--implementation", implementation] if implementation else [])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path}/gt: ")
    assert reason in err


@pytest.mark.parametrize("prepare", [mevis, ref_youtube_vos])
def test_strictly_official_the_mean_of_nothing_is_what_the_code_gives(tmp_path, prepare):
    prepare(tmp_path)
    report = score(prepare.__name__, tmp_path / "gt", tmp_path / "mine", strict_official=True)
    assert np.isnan(report.result["J&F"])
    assert (report.n, report.N) == (0, 1)


def test_strictly_official_sav_stops_of_itself(tmp_path):
    sav(tmp_path)
    with pytest.raises(TpoError, match="never in a scored frame"):
        score("sav", tmp_path / "gt", tmp_path / "mine", strict_official=True)
