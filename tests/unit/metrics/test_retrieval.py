"""Degenerate moments and highlights: rejected and told, or with the effect that they have in the official code."""

import json
import math

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

NAN = float("nan")
SALIENCY = {"duration": 8, "relevant_clip_ids": [0, 1], "saliency_scores": [[4, 4, 4], [4, 4, 4]]}


def truth(qid, *windows, **more):
    return {"qid": qid, "relevant_windows": [list(window) for window in windows], **more}


def found(qid, *windows, **more):
    return {"qid": qid, "pred_relevant_windows": [list(window) for window in windows], **more}


@pytest.fixture
def run(tmp_path):
    def go(truths, predictions, implementation="cgdetr", strict=False):
        for name, rows in (("gt.jsonl", truths), ("pred.jsonl", predictions)):
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return score("qvhighlights", tmp_path / "gt.jsonl", tmp_path / "pred.jsonl", implementation, strict)

    return go


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def full(report):
    numbers = report.result["full"]
    return numbers["MR-R1"]["0.5"], numbers["MR-mAP"]["0.5"], numbers["MR-mIoU"]


@pytest.mark.parametrize(
    ("window", "reason", "official"),
    [
        ([6, 4, 1.0], "reversed", (0.0, 100.0, 0.0)),  # of the truth's length: 0/0 is above every threshold
        ([NAN, 6, 1.0], "not_finite", (0.0, 100.0, NAN)),
    ],
)
def test_a_degenerate_window_is_a_miss_or_what_the_official_code_makes_of_it(run, window, reason, official):
    truths, predictions = [truth(1, (4, 6))], [found(1, window)]
    report = run(truths, predictions)
    assert (full(report), counts(report), report.n) == ((0.0, 0.0, 0.0), {reason: 1}, 1)
    assert full(run(truths, predictions, strict=True)) == pytest.approx(official, nan_ok=True)


def test_a_truth_without_extent_is_matched_by_its_equal_in_the_official_code_only(run):
    truths, predictions = [truth(1, (5, 5))], [found(1, (5, 5, 1.0))]
    report = run(truths, predictions)
    assert (full(report), counts(report)) == ((0.0, 0.0, 0.0), {"zero_length_truth": 1})
    assert full(run(truths, predictions, strict=True)) == (0.0, 100.0, 0.0)


def test_a_rejected_window_keeps_its_place(run):
    """Else one could put nonsense first and be judged by the second."""
    report = run([truth(1, (0, 8))], [found(1, [8, 0, 0.9], [0, 8, 0.8])])
    assert full(report) == (0.0, 50.0, 0.0)
    assert report.rejected["reversed"]["examples"] == ["1 window 0"]


def test_windows_of_another_form_are_told(run):
    report = run([truth(1, (0, 8))], [found(1, [0, 8, 0.9], [0, 8], ["a", 3, 0.2], [0, 4, NAN])])
    assert (full(report), counts(report)) == ((100.0, 100.0, 100.0), {"malformed": 2, "not_finite": 1})
    with pytest.raises(TpoError, match="the official code stops at qid 1"):
        run([truth(1, (0, 8))], [found(1, [0, 8, 0.9], [0, 8])], strict=True)


def test_ids_missing_empty_unknown_and_twice(run):
    truths = [truth(qid, (0, 8)) for qid in (1, 2, 3)]
    predictions = [found(1, (0, 8, 0.5)), found(1, (0, 1, 0.9)), found(2), found(9, (0, 8, 0.5))]
    report = run(truths, predictions)
    assert counts(report) == {"missing": 1, "empty": 1, "duplicate": 1, "unknown": 1}
    assert (report.n, report.N) == (3, 3)
    assert full(report) == (33.33, 33.33, 33.33)


def test_official_codes_stop_at_other_ids_but_that_of_tpo_leaves_them_out(run):
    truths, predictions = [truth(qid, (0, 8)) for qid in (1, 2)], [found(1, (0, 8, 0.5)), found(9, (0, 8, 0.5))]
    with pytest.raises(TpoError, match="2 qids are in one file only, the first is 2"):
        run(truths, predictions, strict=True)
    report = run(truths, predictions, "tpo", strict=True)
    assert (full(report), report.n, report.N) == ((100.0, 100.0, 100.0), 1, 2)
    with pytest.raises(TpoError, match="no query is in both files"):
        run(truths, predictions[1:], "tpo", strict=True)


def test_of_a_repeated_id_the_official_code_ranks_all_and_takes_the_last_on_top(run):
    predictions = [found(1, (0, 8, 0.9)), found(1, (20, 28, 0.5))]
    assert full(run([truth(1, (0, 8))], predictions, strict=True)) == (0.0, 100.0, 0.0)
    assert full(run([truth(1, (0, 8))], predictions)) == (100.0, 100.0, 100.0)


def test_the_official_code_stops_at_an_empty_list(run):
    with pytest.raises(TpoError, match="qid 1"):
        run([truth(1, (0, 8))], [found(1)], strict=True)


def test_of_equal_overlaps_the_last_truth_is_taken(run):
    """One prediction between two truths, then one on the first: it is free only if the last was taken before."""
    truths = [truth(1, (0, 4), (2, 6))]
    report = run(truths, [found(1, (0, 6, 0.9), (0, 4, 0.8))])
    assert report.result["full"]["MR-mAP"]["0.65"] == 100.0


def test_only_ten_listed_windows_are_ranked_but_by_their_score(run):
    misses = [(100 + i, 101 + i, 0.5) for i in range(9)]
    tenth = run([truth(1, (0, 8))], [found(1, *misses, (0, 8, 0.9))])
    assert tenth.result["full"]["MR-mAP"]["0.5"] == 100.0
    eleventh = run([truth(1, (0, 8))], [found(1, *misses, (100, 101, 0.5), (0, 8, 0.9))])
    assert eleventh.result["full"]["MR-mAP"]["0.5"] == 0.0


def test_a_duplicate_detection_is_a_false_positive(run):
    report = run([truth(1, (0, 8), (20, 28))], [found(1, (0, 8, 0.9), (0, 8, 0.8), (20, 28, 0.7))])
    assert report.result["full"]["MR-mAP"]["0.5"] == 83.33


@pytest.mark.parametrize(
    ("length", "ranges"),
    [(10, {"short"}), (10.5, {"middle"}), (30, {"middle"}), (150, {"long"}), (151, set()), (0.5, {"short"})],
)
def test_ranges_are_open_below_and_closed_above(run, length, ranges):
    report = run([truth(1, (0, length))], [found(1, (0, length, 1.0))])
    hit = {name for name in ("short", "middle", "long") if report.result[name]["MR-mAP"]["average"] == 100.0}
    assert hit == ranges
    assert full(report) == (100.0, 100.0, 100.0)


def test_a_range_without_a_query(run):
    truths, predictions = [truth(1, (0, 8))], [found(1, (0, 8, 1.0))]
    for strict in (False, True):
        empty = run(truths, predictions, strict=strict).result["long"]
        assert (len(empty["MR-R1"]), empty["MR-R1"]["average"], "MR-mIoU" in empty) == (20, 0.0, False)
    assert math.isnan(run(truths, predictions, "moment_detr").result["brief"]["MR-long-mAP"])
    with pytest.raises(TpoError, match="no query has a truth in the range 'middle'"):
        run(truths, predictions, "moment_detr", strict=True)


def test_truths_that_nothing_can_match_leave_the_denominator(run):
    truths = [truth(1, (0, 8)), truth(2), truth(3, (8, 0)), truth(4, (0, NAN))]
    report = run(truths, [found(qid, (0, 8, 1.0)) for qid in (1, 2, 3, 4)])
    assert (full(report), report.n, report.N) == ((100.0, 100.0, 100.0), 1, 4)
    assert counts(report) == {"bad_truth": 3}  # their predictions are not told once more


def saliency(qid, scores):
    return {"qid": qid, "pred_saliency_scores": scores}


@pytest.mark.parametrize(
    ("scores", "hit", "reason"),
    [
        ([0, 1, 0, 0], 100.0, None),
        ([0, 1, 1, 0], 100.0, None),  # the first of equals
        ([0, 0, 1, 1], 0.0, None),
        ([0, 1], 100.0, "resized"),
        ([0, 0.5, 0, 0, 9], 0.0, "resized"),  # the best is beyond the video
        ([0, NAN, 0, 0], 0.0, "not_finite"),
        ([], 0.0, "empty"),
        (None, 0.0, "missing"),
        (["a"], 0.0, "malformed"),
    ],
)
def test_hit_at_one(run, scores, hit, reason):
    report = run([truth(1, (0, 4), **SALIENCY)], [saliency(1, scores)])
    assert report.result["brief"]["HL-min-VeryGood-Hit1"] == hit
    assert counts(report) == ({reason: 1} if reason else {})


@pytest.mark.parametrize("scores", [[0, NAN, 0, 0], []])
def test_the_official_code_stops_at_scores_that_are_none(run, scores):
    with pytest.raises(TpoError, match="the official code stops at qid 1"):
        run([truth(1, (0, 4), **SALIENCY)], [saliency(1, scores)], strict=True)


def test_the_official_code_stops_where_no_clip_is_relevant_and_by_default_nothing_is_hit(run):
    labels = {"duration": 8, "relevant_clip_ids": [], "saliency_scores": []}
    rows = [truth(1, (0, 4), **labels)], [saliency(1, [0, 1, 0, 0])]
    assert run(*rows).result["brief"]["HL-min-VeryGood-Hit1"] == 0.0
    with pytest.raises(TpoError, match=r"the official code stops here: .* has no relevant_clip_ids"):
        run(*rows, strict=True)


@pytest.mark.parametrize(("level", "expected"), [(0, 0.0), (4, 100.0)])
def test_saliency_that_is_the_same_everywhere(run, level, expected):
    labels = {"duration": 4, "relevant_clip_ids": [0, 1], "saliency_scores": [[level] * 3] * 2}
    report = run([truth(1, (0, 4), **labels)], [saliency(1, [0.1, 0.2])])
    assert report.result["brief"]["HL-min-VeryGood-mAP"] == expected


def test_equal_saliency_is_one_threshold(run):
    report = run([truth(1, (0, 4), **SALIENCY)], [saliency(1, [1, 1, 1, 1])])
    assert report.result["brief"]["HL-min-VeryGood-mAP"] == 50.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"relevant_clip_ids": [4, 5]}, r"relevant_clip_ids must lie in 0..3"),
        ({"saliency_scores": [[4, 4]]}, "three numbers"),
        ({"duration": 1}, "has no clip"),
    ],
)
def test_a_damaged_truth_is_named(run, labels, message):
    with pytest.raises(TpoError, match=message):
        run([truth(7, (0, 4), **(SALIENCY | labels))], [saliency(7, [1, 1, 1, 1])])


def test_files_that_hold_no_truth_or_no_prediction(run):
    with pytest.raises(TpoError, match="holds no prediction"):
        run([truth(1, (0, 4))], [])
    with pytest.raises(TpoError, match="neither pred_relevant_windows nor pred_saliency_scores"):
        run([truth(1, (0, 4))], [{"qid": 1}])
    with pytest.raises(TpoError, match="repeats qid 1"):
        run([truth(1, (0, 4)), truth(1, (0, 4))], [found(1, (0, 4, 1.0))])


def test_windows_are_processed_before_they_are_scored_when_asked(run, tmp_path):
    run([truth(1, (0, 8))], [found(1, (0, 8, 1.0))])
    paths = tmp_path / "gt.jsonl", tmp_path / "pred.jsonl"
    (tmp_path / "pred.jsonl").write_text(json.dumps(found(1, (-3.1, 7.2, 0.5), (0, 6.9, 0.9))))
    assert full(score("qvhighlights", *paths))[2] == 64.86
    assert full(score("qvhighlights", *paths, clip_round=True))[2] == 100.0
    assert full(score("qvhighlights", *paths, nms=0.6))[2] == 86.25
    (tmp_path / "pred.jsonl").write_text(json.dumps(found(1, [0, 8], (0, 6.9, 0.9))))
    assert counts(score("qvhighlights", *paths, clip_round=True)) == {"malformed": 1}
