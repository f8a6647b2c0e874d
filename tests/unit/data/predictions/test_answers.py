"""Answers go into the files of the official scorers and come back unchanged."""

import json
from pathlib import Path

import pytest

from tpo_core.data.predictions import answers
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError

NEXT_GQA = Path(__file__).resolve().parents[3] / "golden/metrics/formats/input/next_gqa"


def read(root, name, split, path, content, **options):
    (root / path).write_text(json.dumps(content))
    return list(READERS[name].read(str(root), split, options))


def lost(pytest_error):
    text = str(pytest_error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def next_gqa():
    return list(READERS["next_gqa"].read(str(NEXT_GQA), "test", {}))


def test_next_gqa(next_gqa, tmp_path):
    qa, ground = str(tmp_path / "qa.json"), str(tmp_path / "ground.json")
    choices, spans = {"next_gqa/test/2574374895_8": 2}, {"next_gqa/test/2574374895_8": (1.2000000000000002, 5.5)}
    answers.write_next_gqa(next_gqa, choices, spans, qa, ground)
    assert json.loads(Path(qa).read_text()) == {"2574374895_8": {"answer": 2, "prediction": 2}}
    assert json.loads(Path(ground).read_text()) == {"2574374895_8": [1.2000000000000002, 5.5]}
    assert answers.read_next_gqa(next_gqa, qa, ground) == (choices, spans)


def test_next_gqa_without_a_span(next_gqa, tmp_path):
    qa, ground = str(tmp_path / "qa.json"), str(tmp_path / "ground.json")
    answers.write_next_gqa(iter(next_gqa), {}, {}, qa, ground)
    assert answers.read_next_gqa(iter(next_gqa), qa, ground) == ({}, {})


@pytest.mark.parametrize(
    ("qa", "message"),
    [
        ('{"1_2": {"prediction": 1}}', "'1_2' is no question"),
        ('{"2574374895_8": {}}', "'prediction'"),
        ('{"2574374895_8": 3}', "no predictions in the expected form"),
        ("[1]", "no predictions in the expected form"),
        ("{", "no predictions in the expected form"),
    ],
)
def test_a_file_of_another_form_is_a_user_error(next_gqa, tmp_path, qa, message):
    (tmp_path / "qa.json").write_text(qa)
    (tmp_path / "ground.json").write_text("{}")
    with pytest.raises(TpoError, match=message) as error:
        answers.read_next_gqa(next_gqa, str(tmp_path / "qa.json"), str(tmp_path / "ground.json"))
    assert lost(error).startswith(str(tmp_path / "qa.json"))


def test_an_answer_to_no_sample_is_a_user_error(next_gqa, tmp_path):
    with pytest.raises(TpoError, match="1 answers belong to no sample, the first is 'x'"):
        answers.write_next_gqa(next_gqa, {"x": 1}, {}, str(tmp_path / "a"), str(tmp_path / "b"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def video_mme(tmp_path):
    about = {"domain": "Knowledge", "sub_category": "Geography", "duration": "short", "task_type": "Counting Problem"}
    rows = [
        {
            **about,
            "video_id": f"{video:03d}",
            "videoID": f"yt{video}",
            "question_id": f"{video:03d}-{place}",
            "question": f"q{place}?",
            "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. All."],
            "answer": "C",
        }
        for place in (1, 2, 3)
        for video in (1, 2)
    ]
    return read(tmp_path, "video_mme", "test", "q.json", rows, file="q.json")


def test_video_mme(video_mme, tmp_path):
    uri = str(tmp_path / "results.json")
    replies = {f"video_mme/test/001-{place}": reply for place, reply in zip("123", ("C", "", "(B) it is"), strict=True)}
    answers.write_video_mme(video_mme, replies, uri)
    first, second = json.loads(Path(uri).read_text())
    assert (first["video_id"], first["duration"], first["missing"]) == ("001", "short", False)
    assert first["questions"][0] == {
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "q1?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. All."],
        "answer": "C",
        "response": "C",
    }
    assert [question["response"] for question in first["questions"]] == ["C", "", "(B) it is"]
    assert (second["missing"], [question["response"] for question in second["questions"]]) == (True, ["", "", ""])
    assert answers.read_video_mme(video_mme, uri) == replies


def test_video_mme_without_the_key_missing_is_read(video_mme, tmp_path):
    questions = [{"question_id": "002-1", "response": "A"}]
    (tmp_path / "results.json").write_text(json.dumps([{"video_id": "002", "questions": questions}]))
    assert answers.read_video_mme(video_mme, str(tmp_path / "results.json")) == {"video_mme/test/002-1": "A"}


@pytest.mark.parametrize("place", ["1", "2", "3"])
def test_a_video_of_which_some_questions_have_a_reply_is_a_user_error(video_mme, tmp_path, place):
    with pytest.raises(TpoError, match="video 001 has replies to some questions only"):
        answers.write_video_mme(video_mme, {f"video_mme/test/001-{place}": "A"}, str(tmp_path / "r.json"))


def test_mlvu(tmp_path):
    row = {"video": "v.mp4", "question": "What?", "candidates": list("uvwxyz"), "question_type": "anomaly_reco"}
    rows = [{**row, "question_id": f"AR_{number}"} for number in range(3)]
    samples = read(tmp_path, "mlvu", "test", "test_question.json", rows)
    uri, choices = f"file://{tmp_path}/out/test_res.json", {"mlvu/test/AR_0": 5, "mlvu/test/AR_2": 0}
    answers.write_mlvu(samples, choices, uri)
    assert json.loads((tmp_path / "out/test_res.json").read_text()) == [
        {"question_id": "AR_0", "question_type": "anomaly_reco", "option": "F"},
        {"question_id": "AR_2", "question_type": "anomaly_reco", "option": "A"},
    ]
    assert answers.read_mlvu(samples, uri) == choices


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(TpoError, match=r"there is no file of predictions .*r\.json"):
        answers.read_mlvu([], str(tmp_path / "r.json"))


def test_mlvu_with_something_else_than_a_letter_is_a_user_error(tmp_path):
    (tmp_path / "r.json").write_text('[{"question_id": "AR_0", "option": "(A) the cat"}]')
    with pytest.raises(TpoError, match="expected form"):
        answers.read_mlvu([], str(tmp_path / "r.json"))


def test_seed_bench(tmp_path):
    row = {f"choice_{letter}": letter for letter in "abcd"}
    row |= {"data_id": "1", "data_type": "image", "question": "What?", "question_type_id": 5, "answer": "B"}
    rows = [{**row, "question_id": "101"}, {**row, "question_id": 102}]
    samples = read(tmp_path, "seed_bench", "test", "SEED-Bench.json", {"questions": rows})
    uri, choices = str(tmp_path / "results.json"), {"seed_bench/test/101": 3, "seed_bench/test/102": 1}
    answers.write_seed_bench(samples, choices, uri)
    lines = Path(uri).read_text().splitlines()
    assert json.loads(lines[0]) == {"q_id": "101", "prediction": "D", "gt": "B", "q_type_id": 5}
    assert answers.read_seed_bench(samples, uri) == choices
    (tmp_path / "results.json").write_text(lines[0] + "\n{\n")
    with pytest.raises(TpoError, match="expected form"):
        answers.read_seed_bench(samples, uri)
