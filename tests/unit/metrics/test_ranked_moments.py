"""NLQ, TACoS, DiDeMo and NExT-GQA: degenerate files are told, or have their official effect."""

import json

import numpy as np
import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import ranked
from tpo_core.metrics.registry import score

NAN = float("nan")


@pytest.fixture
def run(tmp_path):
    def go(metric, truth, predictions, strict=False, suffix=".json", **options):
        for name, content in (("gt", truth), ("pred", predictions)):
            lines = suffix == ".jsonl"
            text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
            (tmp_path / f"{name}{suffix}").write_text(text)
        paths = tmp_path / f"gt{suffix}", tmp_path / f"pred{suffix}"
        return score(metric, *paths, strict_official=strict, **options)

    return go


@pytest.fixture
def answered(tmp_path):
    """Answers to both questions of NExT-GQA."""
    path = tmp_path / "answered.json"
    path.write_text(json.dumps({key: {"answer": 0, "prediction": 0} for key in ("v_1", "v_2")}))
    return path


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def nlq_truth(*spans):
    queries = [{"query": "q", "clip_start_sec": a, "clip_end_sec": b} for a, b in spans]
    note = {"annotation_uid": "a", "language_queries": queries}
    return {"videos": [{"clips": [{"clip_uid": "c", "annotations": [note]}]}]}


def nlq_row(place, *windows, clip="c"):
    return {"clip_uid": clip, "annotation_uid": "a", "query_idx": place, "predicted_times": [list(w) for w in windows]}


def test_exactly_the_threshold_is_no_hit():
    assert ranked.recalls([np.array([0.5])], [0.5], [1], " ")["Rank@1 mIoU@0.5"] == 0.0


def test_nlq_tells_what_it_rejects(run):
    truth = nlq_truth((0, 10), (0, 10), (0, 10), (5, 5), (9, 1))
    rows = [nlq_row(0, (0, 10)), nlq_row(0, (0, 1)), nlq_row(1, (10, 0), (0, 10)), nlq_row(2), nlq_row(7, (0, 1))]
    report = run("nlq", truth, rows)
    assert (report.result["Rank@1 mIoU@0.5"], report.result["Rank@3 mIoU@0.5"]) == (0.25, 0.5)
    assert (report.n, report.N) == (4, 5)
    assert counts(report) == {
        "missing": 1,
        "empty": 1,
        "reversed": 1,
        "duplicate": 1,
        "unknown": 1,
        "zero_length_truth": 1,
        "bad_truth": 1,
    }


def test_nlq_strictly_official_counts_rows_not_queries(run):
    truth = nlq_truth((0, 10), (0, 10))
    report = run("nlq", truth, [nlq_row(0, (0, 10)), nlq_row(0, (20, 30))], strict=True)
    assert (report.result["Rank@1 mIoU@0.5"], report.n, report.N, counts(report)) == (0.5, 2, 2, {"missing": 1})
    with pytest.raises(TpoError, match="x/a/0 is no query of the truth"):
        run("nlq", truth, [nlq_row(0, (0, 1), clip="x")], strict=True)
    with pytest.raises(TpoError, match="the official code stops at c/a/0"):
        run("nlq", truth, [nlq_row(0)], strict=True)
    with pytest.raises(TpoError, match=r"version must be '1\.0', not '2\.0'"):
        run("nlq", truth, {"version": "2.0", "results": []}, strict=True)


def test_nlq_takes_one_moment_without_a_list_around_it(run):
    row = nlq_row(0) | {"predicted_times": [0, 10]}
    for strict in (False, True):
        assert run("nlq", nlq_truth((0, 10)), [row], strict).result["mIoU"] == 1.0


def test_nlq_queries_without_text_are_no_truths(run):
    truth = nlq_truth((0, 10), (0, 10))
    truth["videos"][0]["clips"][0]["annotations"][0]["language_queries"][0]["query"] = None
    report = run("nlq", truth, {"version": "1.0", "results": [nlq_row(1, (0, 10))]})
    assert (report.result["mIoU"], report.n, report.N) == (1.0, 1, 1)


@pytest.mark.parametrize("content", [[], {"videos": [{}]}, {"results": 3}])
def test_nlq_names_files_of_another_form(run, content):
    with pytest.raises(TpoError, match=r"gt\.json: not the annotations of NLQ"):
        run("nlq", content, [])


def test_suppression_goes_by_the_order_given():
    moments = [[0, 10], [0, 9], [20, 30], [0, 4]]
    assert ranked.suppress(moments, 0.5, 5, strict=True) == [[0, 10], [20, 30], [0, 4]]
    assert ranked.suppress(moments, 0.5, 1, strict=True) == [[0, 10]]
    assert ranked.suppress([[0, 10], [0, 5]], 0.5, 5, strict=True) == [[0, 10], [0, 5]]  # .5 is not above .5
    assert ranked.suppress([], 0.5, 5, strict=True) == []


def test_an_undefined_overlap_suppresses_in_the_official_code_only():
    moments = [[5, 5], [5, 5], [0, 9]]
    assert ranked.suppress(moments, 0.5, 5, strict=True) == [[5, 5], [0, 9]]
    assert ranked.suppress(moments, 0.5, 5, strict=False) == moments


def test_tacos_reads_frames_and_ids(run):
    frames = {"s1.avi": {"timestamps": [[0, 294], [300, 300], [588, 900]], "fps": 29.4, "num_frames": 882}}
    report = run("tacos", frames, [[[0, 10, 0.9]], [[20, 30, 0.8]]])
    assert (report.result["mIoU"], report.n) == (1.0, 2)
    truth = [{"qid": 7, "relevant_windows": [[0, 10]]}, {"qid": 8, "relevant_windows": [[0, 10]]}]
    rows = [{"qid": 8, "pred_relevant_windows": [[0, 10, 1.0]]}, {"qid": 9, "pred_relevant_windows": []}]
    report = run("tacos", truth, rows, suffix=".jsonl")
    assert (report.result["Rank@1,mIoU@0.7"], counts(report)) == (0.5, {"missing": 1, "unknown": 1})


def test_tacos_tells_what_it_rejects(run):
    truth = {"data": [{"times": [0, 10]}, {"times": [0, 10]}, {"times": [0, 10]}, {"times": [10, 0]}]}
    report = run("tacos", truth, {"segments_score_sorted": [[[10, 0], [0, 10]], [], 3, [[0, 1]], [[0, 1]]]})
    assert (report.result["Rank@1,mIoU@0.5"], report.result["Rank@5,mIoU@0.5"]) == pytest.approx((0, 1 / 3))
    assert (report.n, report.N) == (3, 4)
    assert counts(report) == {"reversed": 1, "empty": 1, "malformed": 1, "unknown": 1, "bad_truth": 1}
    with pytest.raises(TpoError, match="the official code stops at 1"):
        run("tacos", truth, [[[0, 10]], []], strict=True)
    assert run("tacos", truth, [[[0, 10]]], strict=True).n == 1


def runs(*first):
    return [list(run) for run in first] + [[5, 5], [4, 5], [3, 5], [2, 5]]


def test_didemo_takes_the_three_that_agree_best(run):
    truth = [{"times": [[0, 0], [0, 0], [0, 0], [5, 5]]}]
    report = run("didemo", truth, [runs([0, 0])])
    assert report.result == {"rank@1": 1.0, "rank@5": 1.0, "mIoU": 1.0}


@pytest.mark.parametrize(
    ("ranked_runs", "reason"),
    [
        ([], "empty"),
        (3, "malformed"),
        ([[1, 0], [0, 0]], "reversed"),
        ([[NAN, 0], [0, 0]], "not_finite"),
        ([["a", 0], [0, 0]], "malformed"),
        ([[5, 5]], "unranked"),
    ],
)
def test_didemo_tells_what_it_rejects(run, ranked_runs, reason):
    report = run("didemo", [{"annotation_id": 9, "times": [[0, 0]] * 4}], [ranked_runs])
    assert (report.result["rank@1"], report.result["mIoU"], counts(report)) == (0.0, 0.0, {reason: 1})


def test_didemo_is_by_place(run):
    truth = [{"times": [[0, 0]] * 4}, {"times": [[0, 0]] * 4}, {"times": []}]
    report = run("didemo", truth, [runs([0, 0])])
    assert (report.result["rank@1"], report.n, report.N) == (0.5, 2, 3)
    assert counts(report) == {"missing": 1, "bad_truth": 1}
    official = run("didemo", truth, [runs([0, 0])], strict=True)
    assert (official.result["rank@1"], official.n, official.N) == (1.0, 1, 3)
    with pytest.raises(TpoError, match="the official code stops at 0"):
        run("didemo", truth, [[[5, 5]]], strict=True)


GQA = {"v": {"duration": 20, "location": {"1": [[2, 6], [10, 12]], "2": [[0, 4]]}}}


@pytest.mark.parametrize(
    ("span", "iou", "iop", "reason"),
    [
        ([2, 6], 1.0, 1.0, None),
        ([3, 3], 0.0, 1.0, None),
        ([6, 2], 0.0, 0.0, "reversed"),
        ([NAN, 6], 0.0, 0.0, "not_finite"),
        ([], 0.0, 0.0, "empty"),
        ([1, 2, 3], 0.0, 0.0, "malformed"),
    ],
)
def test_nextgqa_spans(run, answered, span, iou, iop, reason):
    report = run("nextgqa", GQA, {"v_1": span, "v_2": [0, 4]}, qa=answered)
    assert report.per_item["v_1"] == {"best_IoU": iou, "best_IoP": iop}
    assert counts(report) == ({reason: 1} if reason else {})


def test_nextgqa_nan_is_a_hit_in_the_official_code(run):
    report = run("nextgqa", GQA, {"v_1": [NAN, 6]}, strict=True)
    assert (report.per_item["v_1"]["best_IoU"], report.n, report.N) == (1.0, 1, 2)


def test_nextgqa_needs_the_answer_and_the_moment(run, tmp_path):
    (tmp_path / "qa.json").write_text(json.dumps({"v_1": {"answer": 3, "prediction": 3}}))
    spans = {"v_1": [2, 6], "v_2": [0, 4], "x_9": [0, 1]}
    report = run("nextgqa", GQA, spans, qa=tmp_path / "qa.json")
    assert (report.result["Acc@GQA"], report.result["mIoP"]) == (50.0, 100.0)
    assert counts(report) == {"missing": 1, "unknown": 1}
    with pytest.raises(TpoError, match="there is no answer to v_2"):
        run("nextgqa", GQA, spans, strict=True, qa=tmp_path / "qa.json")


def test_nextgqa_tells_every_missing_answer(run, tmp_path):
    """That of a question which is not grounded would be no hit, and is missing all the same."""
    (tmp_path / "qa.json").write_text(json.dumps({"v_2": {"answer": 3}}))
    report = run("nextgqa", GQA, {"v_1": [8, 9], "v_2": [0, 4]}, qa=tmp_path / "qa.json")
    assert report.result["Acc@GQA"] == 0.0
    assert report.rejected["missing"]["examples"] == ["v_1 answer", "v_2 answer"]


def test_nextgqa_has_no_accuracy_without_answers(run, tmp_path):
    spans = {"v_1": [2, 6], "v_2": [0, 4]}
    report = run("nextgqa", GQA, spans)
    assert list(report.result) == ["mIoP", "TIoP@0.3", "TIoP@0.5", "mIoU", "TIoU@0.3", "TIoU@0.5"]
    assert report.rejected["missing"]["examples"] == ["all answers, so that there is no Acc@GQA: --qa was not given"]
    official = run("nextgqa", GQA, spans, strict=True)
    assert (official.result["Acc@GQA"], official.rejected) == (0.0, {})
    (tmp_path / "qa.json").write_text("{}")
    assert run("nextgqa", GQA, spans, strict=True, qa=tmp_path / "qa.json").result == official.result


def test_nextgqa_fractions_are_rounded_to_a_tenth(run):
    report = run("nextgqa", GQA, {"v_1": [0.1012, 0.3], "v_2": [0, 0.2]}, fractions=True)
    assert report.result["TIoU@0.5"] == 100.0
    assert report.per_item["v_1"]["best_IoU"] == 1.0


@pytest.mark.parametrize("segments", [[], [[6, 2]], [[0, NAN]], [[0, 4], [6, 2]]])
def test_nextgqa_truths_that_nothing_can_match_leave_the_denominator_but_officially(run, answered, segments):
    truth = {"v": {"duration": 9, "location": {"1": [[0, 4]], "2": segments}}}
    spans = {"v_1": [0, 4], "v_2": [0, 4]}
    report = run("nextgqa", truth, spans, qa=answered)
    assert (report.result["mIoU"], report.n, report.N, counts(report)) == (100.0, 1, 2, {"bad_truth": 1})
    assert run("nextgqa", truth, spans, strict=True).n == 2


def test_officially_queries_without_times_are_counted(run):
    truth = nlq_truth((0, 10))
    truth["videos"][0]["clips"][0]["annotations"][0]["language_queries"].append({"query": "later"})
    report, official = (run("nlq", truth, [nlq_row(0, (0, 10))], strict=strict) for strict in (False, True))
    assert ((report.n, report.N), (official.n, official.N)) == ((1, 1), (1, 2))


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([{"qid": 1, "relevant_windows": [[0, 4]]}] * 2, "repeats qid 1"),
        ([{"qid": [1], "relevant_windows": [[0, 4]]}], "qid"),
    ],
)
def test_tacos_ids_are_names_of_one_truth(run, truth, message):
    with pytest.raises(TpoError, match=message):
        run("tacos", truth, [{"qid": 1, "pred_relevant_windows": [[0, 4]]}], suffix=".jsonl")


def test_tacos_keeps_the_first_of_an_id_and_tells_the_others_but_officially(run):
    truth = [{"qid": 1, "relevant_windows": [[0, 10]]}]
    rows = [{"qid": 1, "pred_relevant_windows": [window]} for window in ([0, 10], [90, 99])]
    report = run("tacos", truth, rows, suffix=".jsonl")
    assert (report.result["mIoU"], counts(report)) == (1.0, {"duplicate": 1})
    official = run("tacos", truth, rows, strict=True, suffix=".jsonl")
    assert (official.result["mIoU"], counts(official)) == (0.0, {})


HUGE = 10**400  # a number in JSON that no float holds


@pytest.mark.parametrize(
    ("metric", "truth", "predictions", "suffix"),
    [
        ("tacos", {"data": [{"times": [0, 4]}]}, [[[0, HUGE]]], ".json"),
        ("nextgqa", {"v": {"location": {"1": [[0, 4]]}}}, {"v_1": [HUGE, 4]}, ".json"),
        (
            "qvhighlights",
            [{"qid": 1, "relevant_windows": [[0, 4]]}],
            [{"qid": 1, "pred_relevant_windows": [[0, -HUGE, 1]]}],
            ".jsonl",
        ),
    ],
)
def test_an_integer_beyond_all_floats_is_no_number(run, metric, truth, predictions, suffix):
    """A prediction with one is rejected; officially the code stops, and with one in the truth so does this."""
    assert counts(run(metric, truth, predictions, suffix=suffix))["malformed"] == 1
    with pytest.raises(TpoError, match="the official code stops at"):
        run(metric, truth, predictions, strict=True, suffix=suffix)
    damaged = json.loads(json.dumps(truth).replace("4", str(HUGE)))
    with pytest.raises(TpoError, match=r"must be \[\[|no truth that can be scored"):
        run(metric, damaged, predictions, suffix=suffix)


def test_tacos_officially_stops_at_a_truth_that_is_none(run):
    with pytest.raises(TpoError, match=r"the official code stops at 0: its truth"):
        run("tacos", {"data": [{"times": None}]}, [[[0, 4]]], strict=True)
