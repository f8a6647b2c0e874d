import json
import math

import pytest

from tests.unit.evaluation.report.made_results import make_result, make_row, write_result
from tpo_core.errors import TpoError
from tpo_core.evaluation.report.entries import numbers, read_entry


def read(tmp_path, result, rows=()):
    return read_entry(str(write_result(tmp_path, result, list(rows))))


def test_an_entry_holds_numbers_references_and_rows(tmp_path):
    result = make_result(
        published={"videochat2": {}, "videochat_tpo": {"ACC@0.5": 0.859}, "other": {"x": 1}},
        control={"ACC@0.5": 0.9},
        rejected={"missing": 2, "reversed": {"count": 3, "meaning": "m", "examples": []}},
    )
    entry = read(tmp_path, result, [make_row(0), make_row(1)])
    assert entry.metric == "refcoco (iou)"
    assert entry.metrics == {"ACC@0.5": 0.75}
    assert entry.references == {
        "VideoChat-TPO": {"ACC@0.5": 0.859},
        "other": {"x": 1.0},
        "SAM2 control": {"ACC@0.5": 0.9},
    }
    assert entry.rejected == {"missing": 2, "reversed": 3}
    assert entry.activation == {"missed": 0.25}
    assert [row.sample_id for row in entry.rows()] == ["tiny/val/region-0", "tiny/val/region-1"]
    assert len(list(entry.rows())) == 2  # read anew


def test_nested_numbers_and_those_of_strict_json_become_floats_and_curves_are_left_out():
    found = numbers({"full": {"R1": {"0.5": 63}}, "a": "NaN", "b": None, "c": "-Infinity", "d": [1, 2], "e": "text"})
    assert found.pop("full/R1/0.5") == 63.0
    assert math.isnan(found.pop("a"))
    assert math.isnan(found.pop("b"))
    assert found == {"c": -math.inf}


def test_what_a_newer_evaluation_adds_is_passed_over(tmp_path):
    assert read(tmp_path, make_result(command="score it", seconds=3)).command == "score it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": "many"}, r"result\.json: asked: .*integer.*evaluate again"),
        ({"metrics": None}, r"result\.json: metrics: .*dictionary"),
        ({"rejected": {"missing": "x"}}, r"result\.json: rejected\.missing"),
    ],
)
def test_a_damaged_result_is_named(tmp_path, change, message):
    with pytest.raises(TpoError, match=message):
        read(tmp_path, make_result(**change))


def test_a_field_that_is_missing_is_named(tmp_path):
    result = make_result()
    folder = write_result(tmp_path, result, [])
    del result["title"]
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(TpoError, match=r"title: field required"):
        read_entry(str(folder))


def test_a_damaged_row_is_named_with_its_line(tmp_path):
    entry = read(tmp_path, make_result(), [make_row()])
    rows = tmp_path / "refcoco_val" / "rows.jsonl"
    for line, message in (("{", r"line 2 holds no JSON"), ('{"task": "x"}', r"line 2: sample_id: field required")):
        rows.write_text(f"{json.dumps(make_row())}\n{line}\n")
        with pytest.raises(TpoError, match=message):
            list(entry.rows())
    rows.write_bytes(json.dumps(make_row(answer="?")).encode().replace(b"?", b"\xff"))
    assert [row.answer for row in entry.rows()] == ["\ufffd"]
    rows.unlink()
    with pytest.raises(TpoError, match=r"rows\.jsonl is gone.*evaluate again"):
        list(entry.rows())


def test_scores_may_be_null_or_not_a_number(tmp_path):
    entry = read(tmp_path, make_result(), [make_row(scores={"iou": None}), make_row(scores={"iou": float("nan")})])
    first, second = entry.rows()
    assert first.scores == {"iou": None}
    assert math.isnan(second.scores["iou"])
