"""Multiple choice against what the notebook of MVBench returned."""

import json
from pathlib import Path

import pytest

from tpo_core.data import frame_choice
from tpo_core.errors import TpoError
from tpo_core.metrics import choices
from tpo_core.metrics.registry import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics" / "mcq"


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def test_mvbench_of_each_reply(tmp_path):
    official = golden("golden/mvbench_official_check_ans.json")
    answered = [row for row in official if row["status"] == "ok"]
    assert (len(answered), len(official)) == (185, 186)
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"res_list": [{"pred": row["pred"], "gt": row["gt"]} for row in answered]}))
    report = score("mvbench", path, path, strict_official=True)
    assert [each["right"] for each in report.per_item.values()] == [row["result"] for row in answered]
    assert report.result["Avg"] == pytest.approx(100 * sum(row["result"] for row in answered) / 185, abs=1e-12)


def test_where_the_notebook_of_mvbench_stops():
    path = GOLDEN / "input/mvbench_pairs.json"
    with pytest.raises(TpoError, match="the text of the truth is empty"):
        score("mvbench", path, path, strict_official=True)


def test_replies_that_are_right_for_every_option_are_rejected():
    path = GOLDEN / "input/mvbench_pairs.json"
    report = score("mvbench", path, path)
    pairs = golden("input/mvbench_pairs.json")
    free = {"", " ", "(", ")", "."}
    right = {key: each["right"] for key, each in report.per_item.items()}
    assert not any(value for key, value in right.items() if pairs[int(key.rpartition("-")[2])]["pred"] in free)
    official = {(row["pred"], row["gt"]): row.get("result") for row in golden("golden/mvbench_official_check_ans.json")}
    differ = {pairs[int(k.rpartition("-")[2])]["pred"] for k, v in right.items() if v != official[_pair(pairs, k)]}
    assert differ - free == {"(A)"}  # the truth without a text, at which the notebook stops
    assert report.rejected["bad_truth"]["count"] == 1  # the truth that is no candidate
    assert (report.n, report.N) == (185, 186)


def _pair(pairs, key):
    row = pairs[int(key.rpartition("-")[2])]
    return row["pred"], row["gt"]


def test_letters_of_answers():
    for row in golden("golden/mvbench_official_qa_template.json"):
        data, (_, truth) = row["data"], row["out"]
        letter = choices.right_letter(data["candidates"], data["answer"], last=True) or "@"
        assert f"({letter}) {data['answer']}" == truth


def test_frames_of_mvbench():
    for row in golden("golden/mvbench_official_get_index.json"):
        bound = tuple(row["bound"]) if row["bound"] else None
        found = frame_choice.mvbench(row["num_segments"], row["fps"], row["max_frame"], bound, row["first_idx"])
        assert found == row["result"], row
