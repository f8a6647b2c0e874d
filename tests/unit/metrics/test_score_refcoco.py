"""RefCOCO: the forms of its files, replies as the codes parse them, and degenerate boxes under each rule."""

import json
import pickle

import numpy as np
import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

TRUTH = {"id": 1, "width": 100, "height": 50, "gt_xywh": [10, 10, 20, 20]}
RIGHT = [10, 10, 30, 30]
HALF = [10, 10, 30, 20]


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tmp_path):
    def run(prediction, implementation="iou", truths=(TRUTH,), **options):
        rows = prediction if isinstance(prediction, list) else [prediction]
        ours = jsonl(tmp_path / "pred.jsonl", *rows)
        return score("refcoco", jsonl(tmp_path / "gt.jsonl", *truths), ours, implementation, **options)

    return run


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def accuracy(report):
    """The share of right boxes, whatever the code calls it."""
    result = report.result.get("refcoco", report.result)
    full = {"P@1": 1, "Acc@0.5": 100, "ACC@0.5": 1, "accuracy": 1}
    return next(result[name] / full[name] for name in full if name in result)


ALL = ("iou", "lmms_eval", "shikra", "all_seeing_v2", "mdetr")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([float("nan"), 10, 30, 30], "not_finite"),
        ([0, 0, float("inf"), 10], "not_finite"),
        ([float("-inf"), 10, 30, float("inf")], "not_finite"),
        ([0, 0, 1e300, 10], "out_of_range"),
        ([0, 0, 1e20, 1e20], "out_of_range"),
        ([10, 10, 30, 10**400], "malformed"),
        ([30, 30, 10, 10], "reversed"),
        ([10, 10, 10, 30], "zero_length"),
        (None, "empty"),
        ([1, 2, 3], "malformed"),
        (["a", 2, 3, 4], "malformed"),
        (7, "malformed"),
        ({}, "malformed"),
    ],
)
def test_degenerate_boxes_are_misses_that_are_told(run, implementation, box, reason):
    report = run({"id": 1, "pred_xyxy": box}, implementation)
    assert accuracy(report) == 0
    assert counts(report) == {reason: 1}
    assert (report.n, report.N) == (1, 1)


@pytest.mark.parametrize("implementation", ALL)
def test_missing_unknown_and_repeated_ids(run, implementation):
    rows = [{"id": 1, "pred_xyxy": RIGHT}, {"id": 1, "pred_xyxy": HALF}, {"id": 7, "pred_xyxy": RIGHT}]
    report = run(rows, implementation, truths=(TRUTH, TRUTH | {"id": 2}))
    assert counts(report) == {"missing": 1, "duplicate": 1, "unknown": 1}
    assert accuracy(report) == pytest.approx(0.5)


def test_exactly_half_is_right_where_the_code_says_at_least(run):
    assert [accuracy(run({"id": 1, "pred_xyxy": HALF}, name)) for name in ALL] == [1, 1, 0, 0, 1]


def test_a_box_far_away_has_a_negative_generalised_overlap(run):
    report = run({"id": 1, "pred_xyxy": [60, 10, 80, 30]}, "mdetr")
    assert report.per_item["1"]["giou"] < 0


def test_mdetr_takes_the_best_of_the_first_boxes_by_score(run):
    boxes = [[60, 10, 80, 30]] * 4 + [RIGHT]
    report = run({"id": 1, "pred_xyxy": boxes}, "mdetr")
    assert list(report.result["refcoco"].values()) == [0, 1, 1]
    report = run({"id": 1, "pred_xyxy": boxes, "scores": [0.1, 0.1, 0.1, 0.1, 0.9]}, "mdetr")
    assert list(report.result["refcoco"].values()) == [1, 1, 1]
    report = run({"id": 1, "pred_xyxy": [[30, 30, 10, 10], RIGHT]}, "mdetr")
    assert list(report.result["refcoco"].values()) == [0, 1, 1], "a bad box keeps its rank"
    assert counts(report) == {"reversed": 1}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("box", "reason"), [([0, 0, float("inf"), 10], "not_finite"), ([0, 0, 1e300, 1e300], "out_of_range")]
)
def test_a_box_without_end_costs_its_own_rank_alone(run, box, reason):
    report = run({"id": 1, "pred_xyxy": [box, RIGHT]}, "mdetr")
    assert list(report.result["refcoco"].values()) == [0, 1, 1]
    assert counts(report) == {reason: 1}
    strict = run({"id": 1, "pred_xyxy": [box, RIGHT]}, "mdetr", strict_official=True)
    assert list(strict.result["refcoco"].values()) == [0, 0, 0], "there its overlap is NaN, which nothing exceeds"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("implementation", ["iou", "lmms_eval", "shikra", "all_seeing_v2"])
def test_strictly_official_a_box_without_end_is_a_miss(run, implementation):
    assert accuracy(run({"id": 1, "pred_xyxy": [0, 0, float("inf"), 10]}, implementation, strict_official=True)) == 0
    assert accuracy(run({"id": 1, "pred_xyxy": [0, 0, 1e300, 10]}, implementation, strict_official=True)) == 0


def test_scores_that_are_not_one_a_box(run):
    for scores in ([0.1], ["a", 0.2], 3):
        with pytest.raises(TpoError, match="scores and boxes must be"):
            run({"id": 1, "pred_xyxy": [RIGHT, HALF], "scores": scores}, "mdetr")


def test_the_first_of_several_boxes_counts(run):
    assert accuracy(run({"id": 1, "pred_xyxy": [RIGHT, [0, 0, 1, 1]]})) == 1


@pytest.mark.parametrize(
    ("implementation", "text", "right"),
    [
        ("lmms_eval", "It is at [0.1, 0.2, 0.3, 0.6].", True),
        ("lmms_eval", "[ 0.1,0.2,0.3,0.6 ] or [0, 0, 1, 1]", True),
        ("lmms_eval", "0.1, 0.2, 0.3, 0.6", None),
        ("shikra", "Answer: [0.100,0.200,0.300,0.600] .", True),
        ("shikra", "[0.100, 0.200, 0.300, 0.600]", None),
        ("shikra", "[0.1,0.2,0.3,0.6] [0.1,0.2,0.3,0.6]", None),
        ("shikra", "[0.1,0.2,0.3,0.6;0,0,1,1]", None),
        ("all_seeing_v2", "<box>[[100, 200, 300, 600]]</box>", True),
        ("all_seeing_v2", "<box>[[100, 200, 300, 600], [0, 0, 9, 9]]</box> [[1, 1, 2, 2]]", True),
        ("all_seeing_v2", "[100, 200, 300, 600]", None),
        ("all_seeing_v2", "[[100, 200, 300]]", None),
        ("all_seeing_v2", "[[]]", None),
    ],
)
def test_replies(run, implementation, text, right):
    report = run({"question_id": 1, "text": text}, implementation)
    assert accuracy(report) == bool(right)
    assert counts(report) == ({"unparsed": 1} if right is None else {})
    assert accuracy(run({"id": 1, "text": text}, implementation, strict_official=True)) == bool(right)


def test_replies_about_an_image_padded_to_a_square(run):
    """A quarter of the side is above the image."""
    text = "[[100, 350, 300, 550]]"
    assert accuracy(run({"id": 1, "text": text}, "all_seeing_v2", square_pad=True)) == 1
    assert accuracy(run({"id": 1, "text": text}, "all_seeing_v2")) == 0
    tens = "[[10, 35, 30, 55]]"
    assert accuracy(run({"id": 1, "text": tens}, "all_seeing_v2", square_pad=True, box_scale=100)) == 1


def test_text_is_refused_where_no_code_says_how_to_read_it(run):
    with pytest.raises(TpoError, match="iou reads no text"):
        run({"id": 1, "text": "[0, 0, 1, 1]"})


def test_strictly_official_shikra_and_lmms_eval_take_zeros(run):
    for implementation in ("shikra", "lmms_eval"):
        report = run([], implementation, strict_official=True)
        assert accuracy(report) == 0
        assert counts(report) == {"missing": 1}
    assert run([], "shikra", strict_official=True).result["failed"] == 1


def test_strictly_official_all_seeing_counts_answers(run):
    rows = [{"id": 1, "pred_xyxy": RIGHT}, {"id": 1, "pred_xyxy": [0, 0, 1, 1]}]
    report = run(rows, "all_seeing_v2", truths=(TRUTH, TRUTH | {"id": 2}), strict_official=True)
    assert report.result["refcoco"] == {"# samples": 2, "Acc@0.5": 50.0}
    assert (report.n, report.N) == (1, 2)


def test_strictly_official_reversed_boxes_are_areas(run):
    """Twice reversed has a positive area and no intersection; NaN makes the mean NaN."""
    assert run({"id": 1, "pred_xyxy": [30, 30, 10, 10]}, strict_official=True).result["IoU"] == 0
    report = run({"id": 1, "pred_xyxy": [float("nan"), 10, 30, 30]}, strict_official=True)
    assert np.isnan(report.result["IoU"])
    assert report.result["ACC@0.5"] == 0


@pytest.mark.parametrize(
    ("rows", "implementation", "truth", "message"),
    [
        ([], "mdetr", TRUTH, "no boxes"),
        ([{"id": 1, "pred_xyxy": [30, 30, 10, 10]}], "mdetr", TRUTH, "reversed"),
        ([{"id": 9, "pred_xyxy": RIGHT}], "all_seeing_v2", TRUTH, "answer to no question"),
        ([{"id": 1, "text": "[[1, 1, 2, 2, 3, 3, 4, 4]]"}], "all_seeing_v2", TRUTH, "several boxes"),
        ([{"id": 1, "pred_xyxy": [5, 5, 5, 5]}], "lmms_eval", TRUTH | {"gt_xywh": [5, 5, 0, 0]}, "divides by zero"),
    ],
)
def test_strictly_official_what_makes_the_code_stop_is_told(run, rows, implementation, truth, message):
    with pytest.raises(TpoError, match=message):
        run(rows, implementation, truths=(truth,), strict_official=True)


def test_the_question_file_of_all_seeing(tmp_path):
    row = {"question_id": 4, "width": 100, "height": 50, "bbox": RIGHT, "category": "refcoco_testA", "text": "the cup"}
    truth = jsonl(tmp_path / "questions.jsonl", row)
    ours = jsonl(tmp_path / "answers.jsonl", {"question_id": 4, "text": "[[100, 200, 300, 600]]"})
    report = score("refcoco", truth, ours, "all_seeing_v2")
    assert report.result == {"refcoco_testA": {"# samples": 1, "Acc@0.5": 100.0}}


def test_the_files_of_mdetr(tmp_path):
    truth, ours = tmp_path / "gt.json", tmp_path / "pred.json"
    coco = {
        "images": [{"id": 3, "width": 100, "height": 50, "dataset_name": "refcoco+", "caption": "the cup"}],
        "annotations": [{"id": 1, "image_id": 3, "bbox": TRUTH["gt_xywh"]}],
    }
    truth.write_text(json.dumps(coco))
    ours.write_text(json.dumps({"3": {"scores": [0.1, 0.9], "boxes": [[0, 0, 1, 1], RIGHT]}}))
    assert score("refcoco", truth, ours, "mdetr").result == {"refcoco+": {"P@1": 1.0, "P@5": 1.0, "P@10": 1.0}}
    coco["annotations"] *= 2
    truth.write_text(json.dumps(coco))
    with pytest.raises(TpoError, match="image 3 has two annotations"):
        score("refcoco", truth, ours, "mdetr")


@pytest.fixture
def refer(tmp_path):
    folder = tmp_path / "refcocog"
    folder.mkdir()
    ref = {"ref_id": 1, "ann_id": 5, "image_id": 9, "split": "val"}
    refs = [ref | {"sentences": [{"sent_id": 20}, {"sent_id": 21}]}, ref | {"split": "test", "sentences": []}]
    (folder / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))
    instances = {
        "images": [{"id": 9, "width": 100, "height": 50}],
        "annotations": [{"id": 5, "bbox": [10.0, 10.0, 20.0, 20.0]}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


def test_a_refer_folder_is_scored_a_sentence(refer, tmp_path):
    ours = jsonl(tmp_path / "pred.jsonl", {"sent_id": 20, "pred_xyxy": RIGHT})
    report = score("refcoco", refer, ours)
    assert report.result["ACC@0.5"] == 0.5
    assert (report.N, counts(report)) == (2, {"missing": 1})


def test_what_is_wrong_with_a_refer_folder_is_told(refer, tmp_path):
    ours = jsonl(tmp_path / "pred.jsonl", {"sent_id": 20, "pred_xyxy": RIGHT})
    with pytest.raises(TpoError, match="no sentence of split testA; there: test, val"):
        score("refcoco", refer, ours, split="testA")
    with pytest.raises(TpoError, match="say with --split-by"):
        score("refcoco", refer, ours, split_by="google")
    (refer / "refs(umd).p").write_bytes(pickle.dumps([np.zeros(2)]))
    with pytest.raises(TpoError, match="refs are plain data"):
        score("refcoco", refer, ours)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"width": 1, "height": 1, "gt_xywh": [0, 0, 1, 1]}, "has no id"),
        ({"id": 1, "width": 1, "height": 1, "gt_xywh": [0, 0, 1]}, "four finite numbers"),
        ({"id": 1, "width": 1, "height": 1}, "has no 'bbox'"),
    ],
)
def test_truths_that_cannot_be_read(run, truth, message):
    with pytest.raises(TpoError, match=message):
        run({"id": 1, "pred_xyxy": RIGHT}, truths=(truth,))


def test_no_truth_at_all(run):
    with pytest.raises(TpoError, match="holds no truth"):
        run({"id": 1, "pred_xyxy": RIGHT}, truths=())


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(
    "damage",
    [
        {"width": 0},
        {"width": "10"},
        {"width": 10**400},
        {"height": None},
        {"height": True},
        {"gt_xywh": [0, 0, "x", 10]},
        {"gt_xywh": [0, 0, 10, 10**400]},
    ],
)
def test_damaged_truths_are_one_line(run, implementation, damage):
    with pytest.raises(TpoError, match=r"row 1") as caught:
        run({"id": 1, "pred_xyxy": RIGHT}, implementation, [TRUTH | damage])
    assert len(str(caught.value)) < 400, "a line can be read"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", [f"[[1, 1, 2, {10**400}]]", "[[1, 1, 2, 1e400]]", "[[1, 1, 2, 1e39]]"])
def test_numbers_of_a_reply_that_are_too_large(run, text):
    report = run({"id": 1, "text": text}, "all_seeing_v2")
    assert accuracy(report) == 0
    assert sum(counts(report).values()) == 1


@pytest.mark.parametrize("implementation", ALL)
def test_truths_without_extent_are_misses_and_reversed_ones_are_left_out(run, implementation):
    truths = [TRUTH, TRUTH | {"id": 2, "gt_xywh": [10, 10, 0, 20]}, TRUTH | {"id": 3, "gt_xywh": [10, 10, -5, 20]}]
    report = run([{"id": key, "pred_xyxy": RIGHT} for key in (1, 2, 3)], implementation, truths)
    assert (accuracy(report), report.n, report.N) == (0.5, 2, 3)
    assert counts(report) == {"zero_length_truth": 1, "bad_truth": 1}
