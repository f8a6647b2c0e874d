"""Replies go into the files of scorers that parse them, and come back unchanged."""

import json
from pathlib import Path

import pytest

from tpo_core.data.predictions import answers, moments
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats/input"


@pytest.fixture
def mvbench():
    return list(READERS["mvbench"].read(str(FORMATS / "mvbench"), "test", {}))


def test_mvbench_rows_are_those_of_the_notebook_with_ids(mvbench, tmp_path):
    replies = {mvbench[0].sample_id: "A) Ate the medicine.", mvbench[1].sample_id: "C) 1\nor not"}
    answers.write_mvbench(mvbench, replies, str(tmp_path / "r.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["action_sequence-0", "moving_count-0"]
    assert rows[1]["gt"] == "(C) 1"
    assert answers.read_mvbench(mvbench, str(tmp_path / "r.jsonl")) == replies
    report = score("mvbench", FORMATS / "mvbench", tmp_path / "r.jsonl")
    assert report.result == {"Action Sequence": 100.0, "Moving Count": 100.0, "Avg": 100.0}


def test_mvbench_truth_may_hold_a_part_of_the_questions(mvbench, tmp_path):
    (tmp_path / "json").mkdir()
    row = {"id": "action_sequence-7", "question": "q", "candidates": ["a", "b"], "answer": "b"}
    (tmp_path / "json/action_sequence.json").write_text(json.dumps([row]))
    (tmp_path / "r.jsonl").write_text(json.dumps({"id": "action_sequence-7", "reply": "B) b"}))
    report = score("mvbench", tmp_path, tmp_path / "r.jsonl")
    assert list(report.per_item) == ["action_sequence-7"]
    assert (report.n, report.N, report.result["Avg"]) == (1, 1, 100.0)


def test_a_damaged_file_of_replies_is_named(mvbench, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": "action_sequence-0"}')
    with pytest.raises(TpoError, match=r"'reply' is no question of the samples, and no field"):
        answers.read_mvbench(mvbench, str(tmp_path / "r.jsonl"))


def test_mlvu_and_seed_bench_take_replies(tmp_path):
    (tmp_path / "json").mkdir()
    row = {"video": "v.mp4", "question": "q", "candidates": ["a", "b"], "answer": "b", "question_type": "count"}
    (tmp_path / "json/4_count.json").write_text(json.dumps([row]))
    samples = list(READERS["mlvu"].read(str(tmp_path), "dev", {}))
    answers.write_mlvu(samples, {samples[0].sample_id: "B) b"}, str(tmp_path / "mlvu.json"))
    assert json.loads((tmp_path / "mlvu.json").read_text()) == [
        {"question_id": "4_count-0", "question_type": "count", "pred": "B) b"}
    ]
    assert score("mlvu", tmp_path / "json", tmp_path / "mlvu.json").result["Avg"] == 100.0
    question = {"question_id": "1", "question_type_id": 1, "data_type": "image", "answer": "B", "data_id": "i.jpg"}
    choices = {f"choice_{letter}": letter for letter in "abcd"}
    (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": [{**question, **choices, "question": "q"}]}))
    samples = list(READERS["seed_bench"].read(str(tmp_path), "test", {}))
    answers.write_seed_bench(samples, {samples[0].sample_id: "b."}, str(tmp_path / "seed.jsonl"))
    report = score("seed_bench", tmp_path / "SEED-Bench.json", tmp_path / "seed.jsonl", "lmms_eval")
    assert report.result["seed_all"] == 1.0


def test_a_query_without_a_moment_may_be_written_as_a_miss(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text("V1 0.0 6.0##sits.\nV2 1.0 2.0##stands.")
    samples = list(READERS["charades_sta"].read(str(tmp_path), "test", {"durations": "decoder"}))
    found = {samples[0].sample_id: moments.Moments(((0.0, 6.0, 0.9),))}
    moments.write_charades_sta(samples, found, str(tmp_path / "p.jsonl"), unanswered=True)
    report = score("charades_sta", tmp_path / "charades_sta_test.txt", tmp_path / "p.jsonl")
    assert report.result["brief"]["MR-full-R1@0.5"] == 50.0
    assert report.rejected["empty"]["count"] == 1
    assert (report.n, report.N) == (2, 2)
