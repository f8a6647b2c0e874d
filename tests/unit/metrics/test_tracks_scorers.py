"""Tracks of boxes where something is degenerate: what is rejected, and what the official codes make of it."""

import numpy as np
import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

BOX = "10,10,20,20"


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def lasot(tmp_path):
    """A still target of four frames, absent in the last."""
    folder = tmp_path / "LaSOT" / "cat" / "cat-1"
    write(folder / "groundtruth.txt", [BOX] * 4)
    write(folder / "full_occlusion.txt", ["0,0,0,1"])
    write(folder / "out_of_view.txt", ["0,0,0,0"])
    (tmp_path / "mine").mkdir()

    def run(lines, implementation="pytracking", **options):
        if lines is not None:
            write(tmp_path / "mine" / "cat-1.txt", lines)
        return score("lasot", tmp_path / "LaSOT", tmp_path / "mine", implementation, **options)

    return run


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


@pytest.mark.parametrize("implementation", ["pytracking", "lasot_matlab"])
def test_absent_frames_stay_in_the_denominator(lasot, implementation):
    report = lasot([BOX] * 4, implementation)
    assert report.per_item["cat-1"]["success_curve"][0] == 0.75
    assert report.per_item["cat-1"]["precision_curve"][0] == 0.75
    assert report.rejected == {}


def test_the_got10k_toolkit_scores_absent_frames(lasot):
    assert lasot([BOX] * 4, "got10k_toolkit").result["success_rate"] == 1.0


@pytest.mark.parametrize("implementation", ["pytracking", "lasot_matlab"])
def test_a_tracker_may_say_nothing_where_the_target_is_absent(lasot, implementation):
    assert lasot([BOX] * 3 + ["nan,nan,nan,nan"], implementation).rejected == {}


@pytest.mark.parametrize("strict_official", [False, True])
@pytest.mark.parametrize("lines", [[BOX] + ["nan,nan,nan,nan"] * 3, [BOX] + ["inf,0,0,0"] * 3])
def test_no_box_is_no_hit_where_the_truth_is_zeros(lasot, tmp_path, lines, strict_official):
    """The GOT-10k toolkit scores absent frames too, where zeros would be at no distance from the truth."""
    write(tmp_path / "LaSOT" / "cat" / "cat-1" / "groundtruth.txt", [BOX, BOX, "0,0,0,0", "0,0,0,0"])
    report = lasot(lines, "got10k_toolkit", strict_official=strict_official)
    assert report.result["precision_score"] == 0.25
    assert report.result["normalized_precision_score"] == pytest.approx(0.25)
    assert counts(report) == ({} if strict_official else {"not_finite": 1}), "none is asked for where the target is not"


def test_a_short_result_is_no_hit_where_the_truth_is_zeros(lasot, tmp_path):
    write(tmp_path / "LaSOT" / "cat" / "cat-1" / "groundtruth.txt", [BOX, BOX, "0,0,0,0", "0,0,0,0"])
    assert lasot([BOX], "got10k_toolkit").result["precision_score"] == 0.25
    given = lasot([BOX, BOX, "0,0,0,0", "0,0,0,0"], "got10k_toolkit")
    assert given.result["precision_score"] == 1.0, "that it is gone can be said, by zeros"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nan,1,2,3", "not_finite"),
        ("10,10,-20,20", "reversed"),
        ("10,10,0,20", "zero_length"),
        ("inf,1,2,3", "not_finite"),
    ],
)
@pytest.mark.parametrize("implementation", ["pytracking", "lasot_matlab", "got10k_toolkit"])
def test_a_degenerate_box_is_a_miss_that_is_told(lasot, implementation, line, reason):
    report = lasot([BOX, line, BOX, BOX], implementation)
    assert counts(report) == {reason: 1}
    lost = 0.25
    whole = lasot([BOX] * 4, implementation).per_item["cat-1"]
    for curve, values in report.per_item["cat-1"].items():
        if curve.endswith("_curve"):
            assert values[0] == pytest.approx(whole[curve][0] - lost)


def test_strictly_official_the_frame_before_stands_in(lasot):
    far, gone = "100,100,20,20", "0,0,0,0"
    assert lasot([BOX, far, gone, BOX], strict_official=True).result["OP50"] == pytest.approx(25)
    assert lasot([BOX, BOX, gone, BOX], strict_official=True).result["OP50"] == pytest.approx(75)
    report = lasot([BOX, BOX, "nan,0,0,0", BOX], "lasot_matlab", strict_official=True)
    assert report.result["success_rate_at_0_5"] == pytest.approx(0.75)
    assert report.rejected == {}


@pytest.mark.parametrize(
    ("lines", "implementation", "message"),
    [
        ([BOX, "nan,0,0,0", BOX, BOX], "pytracking", "refuses a NaN"),
        ([BOX, "0,0,-1,0", BOX, BOX], "pytracking", "refuses a NaN or a negative"),
        ([BOX] * 3, "pytracking", "3 boxes for 4 frames"),
        ([BOX] * 3, "lasot_matlab", "3 boxes for 4 frames"),
        ([], "got10k_toolkit", "empty result"),
        (None, "pytracking", r"no cat-1.txt"),
    ],
)
def test_strictly_official_what_makes_the_code_stop_is_told(lasot, lines, implementation, message):
    with pytest.raises(TpoError, match=message):
        lasot(lines, implementation, strict_official=True)


def test_a_short_result_misses_and_a_long_one_is_cut(lasot):
    short = lasot([BOX] * 2)
    assert counts(short) == {"missing": 1}
    assert short.result["OP50"] == pytest.approx(50)
    long = lasot([BOX] * 9)
    assert counts(long) == {"out_of_range": 1}
    assert long.result["OP50"] == pytest.approx(75)
    assert lasot([BOX] * 2, "got10k_toolkit", strict_official=True).result["success_rate"] == 1.0


def test_a_missing_sequence_keeps_its_place(lasot):
    report = lasot(None)
    assert counts(report) == {"missing": 1}
    assert (report.n, report.N) == (1, 1)
    assert report.result["OP50"] == pytest.approx(25)


def test_an_invalid_truth_that_is_visible(lasot, tmp_path):
    """Its errors are hits in the toolkit of LaSOT, in pytracking the normalised one alone."""
    write(tmp_path / "LaSOT" / "cat" / "cat-1" / "groundtruth.txt", [BOX, "-3,10,20,20", BOX, BOX])
    far = [BOX, "500,500,20,20", BOX, BOX]
    matlab, pytracking = lasot(far, "lasot_matlab"), lasot(far, "pytracking")
    assert (matlab.result["precision_20px"], matlab.result["norm_precision_0_2"]) == pytest.approx((0.75, 0.75))
    assert (pytracking.result["Precision"], pytracking.result["NormPrecision"]) == pytest.approx((50, 75))
    assert matlab.result["success_rate_at_0_5"] == pytest.approx(0.5)


def test_a_sequence_without_any_hit_leaves_the_mean_of_the_matlab_toolkit(lasot, tmp_path):
    folder = tmp_path / "LaSOT" / "dog" / "dog-1"
    write(folder / "groundtruth.txt", [BOX] * 4)
    write(folder / "full_occlusion.txt", ["1,1,1,1"])
    write(folder / "out_of_view.txt", ["0,0,0,0"])
    write(tmp_path / "mine" / "dog-1.txt", [BOX] * 4)
    report = lasot([BOX] * 4, "lasot_matlab")
    assert (report.n, report.N) == (1, 2)
    assert report.result["success_rate_at_0_5"] == pytest.approx(0.75)
    assert lasot([BOX] * 4, "pytracking").result["OP50"] == pytest.approx(37.5)


def test_the_annotations_of_the_lasot_toolkit_are_read_too(tmp_path):
    write(tmp_path / "annos" / "cat-1.txt", [BOX] * 4)
    write(tmp_path / "annos" / "absent" / "cat-1.txt", ["0", "0", "0", "1"])
    write(tmp_path / "mine" / "cat-1.txt", [BOX.replace(",", "\t")] * 4)
    write(tmp_path / "mine" / "cat-9.txt", [BOX] * 4)
    report = score("lasot", tmp_path / "annos", tmp_path / "mine")
    assert report.result["OP50"] == pytest.approx(75)
    assert counts(report) == {"unknown": 1}


def test_without_a_valid_frame_there_is_nothing_to_divide_by(lasot, tmp_path):
    folder = tmp_path / "LaSOT" / "dog" / "dog-1"
    write(folder / "groundtruth.txt", [BOX] * 4)
    write(folder / "full_occlusion.txt", ["1,1,1,1"])
    write(folder / "out_of_view.txt", ["0,0,0,0"])
    write(tmp_path / "mine" / "dog-1.txt", [BOX] * 4)
    report = lasot([BOX] * 4, exclude_invalid_frames=True)
    assert (report.n, report.N, report.result["OP50"]) == (1, 2, 100)
    assert counts(report) == {"bad_truth": 1}
    with pytest.raises(TpoError, match="no valid frame"):
        lasot([BOX] * 4, exclude_invalid_frames=True, strict_official=True)
    with pytest.raises(TpoError, match="a switch of pytracking"):
        lasot([BOX] * 4, "lasot_matlab", exclude_invalid_frames=True)


def test_only_the_listed_sequences_are_scored(lasot, tmp_path):
    listed = write(tmp_path / "list.txt", ["cat-1", "cat-2"])
    with pytest.raises(TpoError, match="no truth of cat-2"):
        lasot([BOX] * 4, sequences=str(listed))
    write(listed, ["cat-1"])
    assert lasot([BOX] * 4, sequences=str(listed)).N == 1


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("LaSOT/cat/cat-1/groundtruth.txt", ["1,2,3"], "line 1 has 3 numbers"),
        ("LaSOT/cat/cat-1/groundtruth.txt", ["1,2,x,3"], "no number"),
        ("LaSOT/cat/cat-1/full_occlusion.txt", ["0,0"], "2 flags for 4 frames"),
        ("LaSOT/cat/cat-1/groundtruth.txt", ["nan,2,3,4"] * 4, "not finite"),
        ("mine/cat-1.txt", ["1 2 3 4 5"], "line 1 has 5 numbers"),
    ],
)
def test_files_that_cannot_be_read_are_named(lasot, tmp_path, file, lines, message):
    write(tmp_path / file, lines)
    with pytest.raises(TpoError, match=message):
        lasot([BOX] * 4 if file.startswith("LaSOT") else None)


@pytest.fixture
def got10k(tmp_path):
    """Two sequences of four frames; the second is out of sight after its first."""
    for name, cover in (("A", "8888"), ("B", "8000")):
        folder = tmp_path / "val" / name
        write(folder / "groundtruth.txt", [BOX] * 4)
        write(folder / "cover.label", list(cover))
        write(folder / "meta_info.ini", ["[METAINFO]", "resolution: (100, 80)"])
    write(tmp_path / "val" / "list.txt", ["A", "B"])
    (tmp_path / "mine").mkdir()

    def run(files, **options):
        for name, lines in files.items():
            write(tmp_path / "mine" / name[0] / name, lines)
        return score("got10k", tmp_path, tmp_path / "mine", **options)

    return run


def test_a_sequence_out_of_sight_is_left_out_of_got10k(got10k):
    report = got10k({"A_001.txt": [BOX] * 4})
    assert (report.n, report.N) == (1, 2)
    assert counts(report) == {"bad_truth": 1}
    assert (report.result["ao"], report.result["speed_fps"]) == (1.0, -1.0)


def test_rejected_boxes_of_got10k_are_misses(got10k):
    report = got10k({"A_001.txt": [BOX, "nan,1,1,1", BOX]})
    assert counts(report) == {"missing": 1, "not_finite": 1, "bad_truth": 1}
    assert report.result["ao"] == pytest.approx(1 / 3)
    assert got10k({}).N == 2


def test_got10k_without_any_result_is_zero(got10k):
    report = got10k({})
    assert report.result["ao"] == 0.0
    assert counts(report) == {"missing": 1, "bad_truth": 1}


def test_strictly_official_got10k(got10k):
    both = {"A_001.txt": [BOX, "nan,1,1,1", BOX, BOX], "B_001.txt": [BOX] * 4, "A_time.txt": ["nan"] * 2 + ["0.5"] * 2}
    report = got10k(both, strict_official=True)
    assert np.isnan(report.result["ao"])
    assert report.result["sr"] == pytest.approx(2 / 3)
    assert np.isnan(report.per_item["B"]["ao"])
    assert report.per_item["B"]["speed_fps"] == 2.0, "the time of the sequence before"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"A_001.txt": [BOX] * 4}, "no result"),
        ({"A_001.txt": [BOX] * 3}, "3 boxes for 4 frames"),
        ({"A_001.txt": [BOX] * 4, "B_001.txt": [BOX] * 4}, "no time file of A"),
    ],
)
def test_strictly_official_got10k_stops(got10k, files, message):
    with pytest.raises(TpoError, match=message):
        got10k(files, strict_official=True)


def test_boxes_of_got10k_are_clipped_corner_first(got10k, tmp_path):
    """A box that starts left of the image moves right as a whole."""
    write(tmp_path / "val" / "A" / "groundtruth.txt", ["0,0,20,20"] * 4)
    report = got10k({"A_001.txt": ["-15,0,20,20"] * 4})
    assert report.result["ao"] == 1.0


@pytest.fixture
def trackingnet(tmp_path):
    write(tmp_path / "anno" / "v.txt", ["10,10,20,20"] * 4)
    (tmp_path / "mine").mkdir()

    def run(lines, **options):
        if lines is not None:
            write(tmp_path / "mine" / "v.txt", lines)
        return score("trackingnet", tmp_path, tmp_path / "mine", **options)

    return run


def test_trackingnet_rounds_first(trackingnet):
    assert trackingnet(["10.4,9.6,20.4,19.6"] * 4).result["success"] == pytest.approx(100)


def test_rejected_boxes_of_trackingnet_are_misses(trackingnet):
    report = trackingnet([BOX, "nan,1,1,1", "10,10,-5,5"])
    assert counts(report) == {"missing": 1, "not_finite": 1, "reversed": 1}
    assert report.result["success"] == pytest.approx(25)


@pytest.mark.parametrize("lines", [["10,10,20,20"] + ["nan,nan,nan,nan"] * 3, ["10,10,20,20"]])
def test_no_box_is_no_hit_of_trackingnet_where_the_truth_is_zeros(trackingnet, tmp_path, lines):
    write(tmp_path / "anno" / "v.txt", ["10,10,20,20"] * 2 + ["0,0,0,0"] * 2)
    report, strict = trackingnet(lines), trackingnet(lines, strict_official=True)
    assert report.result["precision"] == pytest.approx(25)
    assert all(value <= strict.result[name] for name, value in report.result.items())


def test_strictly_official_trackingnet_compares_what_is_there(trackingnet):
    """Zeros overlap by 0, which is a hit at threshold 0; what is not there at all is none."""
    zeros = trackingnet(None, strict_official=True).result
    short = trackingnet([BOX], strict_official=True).result
    assert zeros["success"] == pytest.approx(25 + 75 * 0.025)
    assert short["success"] == pytest.approx(25)
    assert (zeros["coverage"], short["coverage"]) == (25, 25)


def test_strictly_official_trackingnet_looks_for_the_name_anywhere(trackingnet, tmp_path):
    write(tmp_path / "mine" / "more" / "av.txt", ["10,10,20,20"] * 4)
    assert trackingnet(None, strict_official=True).result["success"] == pytest.approx(100)
    assert trackingnet(None).result["success"] == pytest.approx(25)
    assert trackingnet([BOX] * 4, strict_official=True).result["success"] < 100, "two of them are none"


def test_folders_without_what_is_asked_for_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TpoError, match=r"no SEQUENCE.txt"):
        score("trackingnet", tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(TpoError, match=r"no list.txt"):
        score("got10k", tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(TpoError, match=r"no groundtruth.txt"):
        score("lasot", tmp_path / "empty", tmp_path / "empty")
