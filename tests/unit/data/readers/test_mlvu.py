import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED
from tpo_core.errors import TpoError

ROW = {
    "video": "needle_1.mp4",
    "duration": 480.5,
    "question": "What colour?",
    "candidates": ["Yellow", "Red", "Blue", "Green"],
    "answer": "Red",
    "question_type": "findNeedle",
}


def write(root, task, rows):
    (root / "json").mkdir(exist_ok=True)
    (root / "json" / f"{task}.json").write_text(json.dumps(rows))


def read(root, split="dev", **options):
    return list(READERS["mlvu"].read(str(root), split, options))


def test_choices_of_a_task_file(tmp_path):
    write(tmp_path, "2_needle", [ROW])
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task) == ("mlvu/dev/2_needle-0", "mcq")
    assert (sample.options, sample.answer_index) == (("Yellow", "Red", "Blue", "Green"), 1)
    media = sample.media[0]
    assert (media.uri, media.kind, media.duration_s) == ("video/2_needle/needle_1.mp4", "video", 480.5)
    assert json.loads(sample.provenance.raw) == {"task_type": "findNeedle"}


def test_generation_tasks_are_chat(tmp_path):
    row = {
        "video": "s.mp4",
        "duration": 300,
        "question": "Summarise.",
        "answer": "A man wakes up.",
        "question_type": "subPlot",
        "scoring_points": ["A man wakes."],
    }
    write(tmp_path, "8_sub_scene", [row])
    write(tmp_path, "4_count", [{**ROW, "candidates": [1, 2], "answer": 2}])
    count, scene = read(tmp_path)
    assert (scene.task, scene.options, scene.answer_text) == ("chat", None, "A man wakes up.")
    assert [(turn.role, turn.text) for turn in scene.turns] == [("user", "Summarise."), ("assistant", row["answer"])]
    assert json.loads(scene.provenance.raw)["scoring_points"] == ["A man wakes."]
    assert (count.options, count.answer_index) == (("1", "2"), 1)


def test_the_test_set_has_more_options_and_no_answers(tmp_path):
    row = {key: value for key, value in ROW.items() if key not in ("answer", "duration")}
    row = {**row, "candidates": list("uvwxyz"), "question_id": "AR_0", "question_type": "anomaly_reco"}
    (tmp_path / "test_question.json").write_text(json.dumps([row]))
    (sample,) = read(tmp_path, "test")
    assert sample.sample_id == "mlvu/test/AR_0"
    assert (sample.options, sample.answer_index) == (tuple("uvwxyz"), None)
    assert sample.provenance.flags == (UNLABELLED,)
    assert [turn.role for turn in sample.turns] == ["user"]
    assert sample.media[0].uri == "video/needle_1.mp4"


def test_one_file_with_the_options_in_the_question(tmp_path):
    text = "What colour?\n(A) yellow\n(B) dark red\n"
    row = {"video_name": "n.mp4", "duration": 9.0, "question": text, "answer": "B", "task_type": "needle"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "question": "What?"}) + "\n{\n")
    sample, *rejects = read(tmp_path, file="{split}.jsonl", video="clips/{name}")
    assert (sample.turns[0].text, sample.options, sample.answer_index) == ("What colour?", ("yellow", "dark red"), 1)
    assert json.loads(sample.provenance.raw) == {"question": text, "task_type": "needle"}
    assert sample.media[0].uri == "clips/n.mp4"
    assert [(item.uri, item.reason) for item in rejects] == [
        ("dev.jsonl:2", "bad_record"),
        ("dev.jsonl:3", "bad_record"),
    ]


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    rows = [
        ROW,
        {**ROW, "answer": "Pink"},
        {**ROW, "answer": None},
        {**ROW, "video": 3},
        {**ROW, "duration": "long"},
        {key: value for key, value in ROW.items() if key != "question_type"},
        {**ROW, "candidates": None, "answer": " "},
        [ROW],
        ROW,
    ]
    write(tmp_path, "1_plotQA", rows)
    items = read(tmp_path)
    assert {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)} == {
        "2": "answer_not_an_option",
        "3": "answer_not_an_option",
        "4": "bad_record",
        "5": "bad_record",
        "6": "bad_record",
        "7": "no_answer",
        "8": "bad_record",
    }
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 8]


def test_a_dev_set_without_any_file_names_the_first(tmp_path):
    (tmp_path / "json").mkdir()
    with pytest.raises(TpoError, match=r"json/1_plotQA\.json"):
        read(tmp_path)
