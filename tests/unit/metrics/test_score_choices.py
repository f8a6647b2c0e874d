"""Multiple choice: how replies are read, and what the scorers make of degenerate files."""

import json

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics import choices
from tpo_core.metrics.registry import score


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b. the dog", "B"),
        ("The answer is (C).", "C"),
        ("a cat sits", "A"),
        ("It is C or D", "C"),
        ("Cat", "cat"),
        ("", ""),
        ("F", "f"),
        ("I think:\tD", "D"),
        ("A.B", "A"),
        ("E,F", "E"),
        ("1,000 d", "D"),
    ],
)
def test_the_letter_that_lmms_eval_reads(reply, letter):
    assert choices.mvbench_lmms_eval(reply) == letter


@pytest.mark.parametrize(
    ("reply", "letter"), [("A) text", "A"), ("(B) text", "B"), ("C", "C"), (")", ""), ("c)", "c"), ("The A", "The A")]
)
def test_the_letter_that_mlvu_reads(reply, letter):
    assert choices.mlvu(reply) == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The best answer is C", "C"),
        ("The best option is C", "C"),
        ("Best option: (C)", "B"),
        ("Best answer: C", "B"),
        ("Best answer:Best option: C", "C"),
        ("a", ""),
        ("The Answer: D", "A"),
        ("none " * 20, ""),
    ],
)
def test_the_letter_that_video_mme_reads(reply, letter):
    assert choices.video_mme(reply) == letter


MVBENCH = [
    {"question": "q", "candidates": ["x", "y", "x"], "answer": "x"},
    {"question": "q", "candidates": ["x", "y"], "answer": "y"},
    {"question": "q", "candidates": ["x", "y"], "answer": "z"},
]


@pytest.fixture
def mvbench(tmp_path):
    write(tmp_path / "json/moving_count.json", MVBENCH[:2])
    write(tmp_path / "json/action_sequence.json", MVBENCH[:1])
    return tmp_path


def test_mvbench_goes_by_place_in_the_order_of_the_tasks(mvbench):
    given = write(mvbench / "results.json", {"res_list": [{"pred": "(C) x"}, {"pred": "(C"}, {"pred": "(A)"}]})
    report = score("mvbench", mvbench, given)
    assert report.result == {"Action Sequence": 100.0, "Moving Count": 50.0, "Avg": pytest.approx(200 / 3)}


def test_mvbench_goes_by_id_and_prefixes_replies(mvbench):
    rows = [
        {"id": "moving_count-1", "reply": "B) y\nsince"},
        {"id": "moving_count-0", "reply": ""},
        {"id": "moving_count-0", "reply": "C)"},
        {"id": "scene_transition-0", "reply": "A"},
    ]
    report = score("mvbench", mvbench, write(mvbench / "pred.jsonl", rows))
    assert {key: each["right"] for key, each in report.per_item.items()} == {
        "action_sequence-0": False,
        "moving_count-0": False,
        "moving_count-1": True,
    }
    assert counts(report) == {"missing": 1, "unparsed": 1, "duplicate": 1, "unknown": 1}
    official = score("mvbench", mvbench, mvbench / "pred.jsonl", strict_official=True)
    assert (official.result, official.n, official.N) == ({"Moving Count": 100.0, "Avg": 100.0}, 2, 3)


def test_mvbench_lmms_eval_takes_the_first_of_equal_candidates(mvbench):
    rows = [
        {"id": "action_sequence-0", "pred": "A"},
        {"id": "moving_count-0", "pred": ""},
        {"id": "moving_count-1", "pred": "a"},
    ]
    path = write(mvbench / "pred.jsonl", rows)
    report = score("mvbench", mvbench, path, "lmms_eval")
    assert report.result["mvbench_accuracy"]["mvbench"] == pytest.approx(100 / 3)
    assert counts(report) == {"empty": 1}
    official = score("mvbench", mvbench, path, "lmms_eval", strict_official=True)
    assert (official.result["mvbench_accuracy"]["mvbench"], official.n, official.N) == (50.0, 2, 3)


def test_mvbench_answers_that_are_no_candidate(tmp_path):
    truth = write(tmp_path / "moving_count.json", MVBENCH[2:])
    given = write(tmp_path / "pred.json", [{"pred": "(A)"}])
    with pytest.raises(TpoError, match="nothing is left to score"):
        score("mvbench", truth, given)
    assert score("mvbench", truth, given, strict_official=True).result["Avg"] == 0.0
    with pytest.raises(TpoError, match="no candidate equals the answer"):
        score("mvbench", truth, given, "lmms_eval", strict_official=True)


def test_mvbench_results_of_other_questions(mvbench):
    given = write(mvbench / "results.json", [{"pred": "(C)", "gt": "(A) other"}])
    with pytest.raises(TpoError, match="the row of action_sequence-0 has the truth"):
        score("mvbench", mvbench, given)
    with pytest.raises(TpoError, match="holds no <task>"):
        score("mvbench", write(mvbench / "empty/x.json", []).parent, given)


MLVU = [{"question": "q", "candidates": ["x", "y"], "answer": answer, "question_type": "t"} for answer in "yxz"]


def test_mlvu_averages_over_tasks(tmp_path):
    write(tmp_path / "4_count.json", MLVU[:1])
    write(tmp_path / "1_plotQA.json", MLVU[:2])
    given = write(tmp_path / "res.json", {"res_list": [{"pred": "B) y"}, {"pred": "(B)"}, {"pred": "a)"}]})
    report = score("mlvu", tmp_path, given)
    assert report.result == {"count": 100.0, "plotQA": 50.0, "Avg": 75.0}
    assert counts(report) == {"unparsed": 1}


def test_mlvu_keeps_the_blanks_of_a_reply_as_its_code_does(tmp_path):
    """A letter with a blank or a line end equals no letter: wrong officially, and by default told as well."""
    truth = write(tmp_path / "1_plotQA.json", MLVU[:2])
    given = write(tmp_path / "res.json", {"res_list": [{"pred": "B\n"}, {"pred": " A"}]})
    report, official = (score("mlvu", truth, given, strict_official=strict) for strict in (False, True))
    assert report.result == official.result == {"t": 0.0, "Avg": 0.0}
    assert (counts(report), counts(official)) == ({"unparsed": 2}, {})


def test_mlvu_goes_by_id(tmp_path):
    truth = write(tmp_path / "2_needle.json", MLVU)
    rows = [{"question_id": "2_needle-1", "question_type": "findNeedle", "option": "A"}]
    report = score("mlvu", truth, write(tmp_path / "pred.json", rows))
    assert (report.result["Avg"], report.n, report.N) == (50.0, 2, 3)
    assert counts(report) == {"missing": 2, "bad_truth": 1}
    official = score("mlvu", truth, tmp_path / "pred.json", strict_official=True)
    assert (official.result["Avg"], official.n, official.N) == (100.0, 1, 3)


def test_mlvu_of_one_file_of_letters(tmp_path):
    rows = [{"video_name": "v", "question": "q (A) x (B) y", "answer": "B", "task_type": "ego"}]
    truth = write(tmp_path / "dev.jsonl", rows)
    report = score("mlvu", truth, write(tmp_path / "pred.jsonl", [{"id": "0", "pred": "B"}]))
    assert report.result == {"ego": 100.0, "Avg": 100.0}


def seed(number, kind, answer, data_type="image"):
    return {"question_id": number, "question_type_id": kind, "answer": answer, "data_type": data_type}


def test_seed_bench_by_type(tmp_path):
    truth = write(tmp_path / "SEED.json", {"questions": [seed(1, 1, "A"), seed(2, 1, "B"), seed(3, 10, "C", "video")]})
    rows = [{"q_id": 1, "prediction": "A"}, {"q_id": 2, "prediction": "c"}, {"q_id": 9, "prediction": "A"}]
    given = tmp_path / "results.json"
    given.write_text("\n".join(map(json.dumps, rows)))
    report = score("seed_bench", truth, given)
    assert report.result == {"Data type 1": 50.0, "Data type 10": 0.0, "Total accuracy": 33.33}
    assert counts(report) == {"missing": 1, "unparsed": 1, "unknown": 1}
    official = score("seed_bench", truth, given, strict_official=True)
    assert (official.result["Total accuracy"], official.n, official.N) == (50.0, 2, 3)


def test_seed_bench_stops_at_a_type_without_a_right_answer(tmp_path):
    truth = write(tmp_path / "SEED.json", {"questions": [seed(1, 1, "A")]})
    given = write(tmp_path / "pred.json", [{"q_id": 1, "prediction": "B"}])
    with pytest.raises(TpoError, match="Data type 1 has no right answer"):
        score("seed_bench", truth, given, strict_official=True)


def test_seed_bench_of_replies(tmp_path):
    truth = write(tmp_path / "SEED.json", {"questions": [seed(1, 1, "A"), seed(2, 10, "B", "video")]})
    rows = [{"question_id": 1, "prediction": " a. x"}, {"question_id": 2, "prediction": "The B"}]
    report = score("seed_bench", truth, write(tmp_path / "pred.json", rows), "lmms_eval")
    assert report.result == {"seed_image": 1.0, "seed_video": 0.0, "seed_all": 0.5}


def video(duration, name, *responses, **more):
    questions = [
        {"question_id": f"{name}-{place}", "task_type": "OCR Problems", "answer": "C", "response": response}
        for place, response in enumerate(responses)
    ]
    about = {"video_id": name, "duration": duration, "domain": "Knowledge", "sub_category": "Law"}
    return about | {"questions": questions} | more


def test_video_mme_by_duration(tmp_path):
    path = write(
        tmp_path / "r.json", [video("short", "1", "C", "none"), video("long", "2", "A"), video("long", "3", "")]
    )
    report = score("video_mme", path, path)
    assert {name: part["Overall"] for name, part in report.result.items()} == {
        "short": 50.0,
        "long": 0.0,
        "entire dataset": 25.0,
    }
    assert report.result["short"]["Task Categories"] == {"OCR Problems": 50.0}
    assert (counts(report), report.n, report.N) == ({"empty": 1, "unparsed": 1}, 4, 4)
    with pytest.raises(TpoError, match="1 videos are short, not 300"):
        score("video_mme", path, path, strict_official=True)
    official = score("video_mme", path, path, strict_official=True, skip_missing=True)
    assert (official.result["entire dataset"]["Overall"], official.n, official.N) == (50.0, 2, 4)


def test_video_mme_skips_what_is_marked_when_it_is_asked_to(tmp_path):
    path = write(tmp_path / "r.json", [video("short", "1", "C"), video("short", "2", "", missing=True)])
    assert score("video_mme", path, path).result["short"]["Overall"] == 50.0
    skipped = score("video_mme", path, path, skip_missing=True)
    assert (skipped.result["short"]["Overall"], skipped.n, skipped.N) == (100.0, 1, 2)


def test_video_mme_of_rows(tmp_path):
    about = {"duration_category": "short", "video_category": "Knowledge", "video_subcategory": "Law"}
    truth = write(tmp_path / "t.jsonl", [{"question_id": "1-1", "answer": "C", "task_type": "x"} | about])
    rows = [{"question_id": "1-1", "response": "C"}, {"question_id": "9", "response": "C"}]
    report = score("video_mme", truth, write(tmp_path / "p.jsonl", rows))
    assert (report.result["short"]["Overall"], counts(report)) == (100.0, {"unknown": 1})


@pytest.mark.parametrize(
    ("metric", "content", "message"),
    [
        ("mvbench", 3, "neither JSON lines"),
        ("mlvu", [3], "row 0 is not an object"),
        ("seed_bench", [{}], "has no 'question_id'"),
        ("video_mme", [{"questions": [{}]}], "has no 'question_id'"),
        ("mlvu", [{"candidates": None, "answer": "x"}], "generation tasks"),
    ],
)
def test_files_of_another_form_are_named(tmp_path, metric, content, message):
    path = write(tmp_path / "x.json", content)
    with pytest.raises(TpoError, match=message):
        score(metric, path, path)


def test_questions_of_one_id_are_refused(tmp_path):
    """A reply could not say which of them it answers."""
    row = {"question": "q", "candidates": ["x", "y"], "answer": "x", "question_type": "t", "id": "1"}
    truth = write(tmp_path / "t.json", [row, row | {"answer": "y"}])
    with pytest.raises(TpoError, match="the truth repeats id 1"):
        score("mlvu", truth, write(tmp_path / "pred.json", [{"id": "1", "pred": "A)"}]))


def test_the_sixth_option_is_right_officially_in_lmms_eval(tmp_path):
    row = {"question": "q", "candidates": list("uvwxyz"), "answer": "z"}
    truth, given = write(tmp_path / "t.json", [row]), write(tmp_path / "p.json", [{"pred": "F"}])
    for strict, right in ((True, 100.0), (False, 0.0)):
        report = score("mvbench", truth, given, "lmms_eval", strict_official=strict)
        assert report.result["mvbench_accuracy"]["mvbench"] == right
